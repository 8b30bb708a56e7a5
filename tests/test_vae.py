"""Equations (11)-(14): the VAE's loss, its gradient, its bounds and its training, against exact answers.

Expectations over the latent noise are sums over nodes, fed in as `noise` or through a scripted Generator; the
few statistical tests fail a right program once in 1e7 runs.
"""

import copy
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import logsumexp

from scratchgen import PPCA, VAE, FactorAnalysis, LinearVAE, Mixture, datasets
from scratchgen.conformance import check_gradient
from scratchgen.em import ppca_maximum
from scratchgen.grading import gaussian_gap, grade_linear_vae, grade_vae, nearest_gaussian, transport_decoder
from scratchgen.likelihood import entropy_gaussian, log_bin_mass, log_bin_mass_slopes
from scratchgen.network import ACTIVATIONS
from scratchgen.quadrature import central_difference, sigma_points
from scratchgen.testing import mixtures, reals
from scratchgen.vae import VAENetwork
from scratchgen.variational import linear_gaussian_elbo, linear_gaussian_log_prob, linear_gaussian_mean_field
from tests.strategies import FALSE_ALARM, Scripted, passes_as_sample, residual, slope_along


@st.composite
def networks(draw, hidden=None):
    """A VAE network with every parameter random, examples, and noise."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    D, k = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    layers = draw(st.lists(st.integers(1, 5), max_size=2)) if hidden is None else hidden
    network = VAENetwork(D, k, layers, draw(st.sampled_from(ACTIVATIONS)), rng, np.float64)
    for parameters, _ in network.parts:
        parameters[:] = rng.standard_normal(len(parameters)) / 2
    return network, rng.standard_normal((3, D)), rng.standard_normal((3, k)), rng


def with_covariance(eigenvalues, n=40, seed=3):
    """(n, D) data whose sample covariance, with 1/n, has exactly these eigenvalues, in a random basis."""
    rng = np.random.default_rng(seed)
    D = len(eigenvalues)
    centred = rng.standard_normal((n, D))
    orthonormal = np.linalg.qr(centred - centred.mean(axis=0))[0]
    basis = np.linalg.qr(rng.standard_normal((D, D)))[0]
    return n**0.5 * orthonormal * np.sqrt(eigenvalues) @ basis.T + rng.standard_normal(D)


def linear(**parameters):
    """A linear VAE whose training has no noise."""
    return LinearVAE(**{"n_steps": 1000, "learning_rate": 0.05, "rng": 0, **parameters})


# --- (14): the loss and its gradient ----------------------------------------------------------------------


@given(networks(), st.sampled_from([0.0, 1.0, 4.0]))
def test_gradient_of_the_loss_is_its_derivative_in_all_three_parts(drawn, kl_weight):
    network, x, noise, rng = drawn
    network.loss(x, noise, kl_weight)
    gradients = [gradient.copy() for _, gradient in network.parts]
    for (parameters, _), gradient in zip(network.parts, gradients, strict=True):
        direction = rng.standard_normal(parameters.shape)
        direction /= np.linalg.norm(direction)
        numeric = slope_along(parameters, direction, lambda: float(network.loss(x, noise, kl_weight).mean()))
        assert abs(float(gradient @ direction) - numeric) <= 1e-7 * max(float(np.linalg.norm(gradient)), 1e-2)


@given(networks(), st.sampled_from([0.0, 1.0, 4.0]))
def test_loss_is_minus_log_joint_plus_the_kl(drawn, kl_weight):
    """At every draw: ‖x − x̂‖²/(2s²) + (D/2) log 2πs² summed over D, and the weighted KL(N(μ, σ²)‖N(0, 1)), over k."""
    network, x, noise, _ = drawn
    output = network.encoder(x)
    mean, std = output[:, : network.n_latents], np.exp(output[:, network.n_latents :] / 2)
    x_hat, s = network.decoder(mean + std * noise), np.exp(network.log_variance[0] / 2)
    kl = (np.log(1 / std) + (std**2 + mean**2) / 2 - 0.5).sum(axis=1)
    expected = kl_weight * kl - stats.norm.logpdf(x, x_hat, s).sum(axis=1)
    assert residual(network.loss(x, noise, kl_weight), expected) < 1e-12
    assert residual(network.loss(x, noise), network.loss(x, noise, 1.0)) == 0


@given(networks(hidden=()))
def test_mean_loss_at_sigma_points_is_the_closed_elbo(drawn):
    """P14: one draw is an unbiased estimate, so that the mean over a rule exact for quadratics is the ELBO itself."""
    network, x, _, _ = drawn
    k = network.n_latents
    losses = [network.loss(x, np.broadcast_to(point, (3, k))) for point in sigma_points(k)]
    W, mean = network.decoder.weights[0].T, network.decoder.biases[0]
    output, s2 = network.encoder(x), float(np.exp(network.log_variance[0]))
    closed = [
        linear_gaussian_elbo(row[None], W, mean, s2, o[None, :k], np.diag(np.exp(o[k:])))[0]
        for row, o in zip(x, output, strict=True)
    ]
    assert residual(-np.mean(losses, axis=0), np.array(closed)) < 1e-12


@pytest.mark.parametrize("k", [1, 2, 5])
def test_sigma_points_have_the_moments_of_the_normal(k):
    points = sigma_points(k)
    assert points.shape == (2 * k, k)
    assert (points.sum(axis=0) == 0).all()
    assert residual(points.T @ points / (2 * k), np.eye(k)) < 1e-15


@given(networks(), st.integers(2, 4))
def test_duplicating_the_batch_changes_neither_loss_nor_gradient(drawn, copies):
    network, x, noise, _ = drawn
    loss = network.loss(x, noise)
    gradients = [gradient.copy() for _, gradient in network.parts]
    assert residual(network.loss(np.tile(x, (copies, 1)), np.tile(noise, (copies, 1))), np.tile(loss, copies)) < 1e-14
    for (_, gradient), before in zip(network.parts, gradients, strict=True):
        assert residual(gradient, before) < 1e-13


@given(networks(), st.booleans())
def test_best_decoder_variance_is_the_mean_squared_error(drawn, per_dimension):
    """Of all dimensions, or of each its own."""
    network, x, noise, _ = drawn
    mean, log_variance = network.encode(x)
    x_hat = network.decoder(mean + np.exp(log_variance / 2) * noise)
    best = np.log(((x - x_hat) ** 2).mean(axis=0 if per_dimension else None, keepdims=True).ravel())
    network.log_variance, network.log_variance_gradient = np.zeros((2, len(best)))
    for shift, sign in (0.0, 0), (0.1, 1), (-0.1, -1):
        network.log_variance[:] = best + shift
        network.loss(x, noise)
        gradient = network.log_variance_gradient
        assert (abs(gradient) < 1e-12 if sign == 0 else np.sign(gradient) == sign).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("log_variance", [-30.0, 30.0])
def test_large_log_variances_are_finite_and_pull_back(log_variance, dtype):
    """No clamp: at log σ² = ±30 the KL's gradient is ½(σ² − 1), where a clamp would leave 0 for ever."""
    network = VAENetwork(3, 2, (), rng=0, dtype=dtype)
    network.encoder.weights[0][:, 2:] = 0
    network.encoder.biases[0][2:] = log_variance
    network.decoder.weights[0][:] = 0  # so that the KL's gradient stands alone
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(dtype)
    loss = network.loss(x, np.ones((5, 2), dtype=dtype))
    assert np.isfinite(loss).all()
    assert all(np.isfinite(gradient).all() for _, gradient in network.parts)
    bias_gradient = network.encoder.gradient[-2:]
    assert bias_gradient == pytest.approx(0.5 * np.expm1(log_variance), rel=1e-5 if dtype == np.float32 else 1e-12)


def test_float32_network_computes_in_float32():
    network = VAENetwork(3, 2, (4,), rng=0)
    rng = np.random.default_rng(0)
    x, noise = (rng.standard_normal((5, n), dtype=np.float32) for n in (3, 2))
    assert network.loss(x, noise).dtype == np.float32
    assert {array.dtype for part in network.parts for array in part} == {np.dtype(np.float32)}


def test_encoder_and_decoder_mirror_each_other_unless_the_decoder_has_its_own_layers():
    network = VAENetwork(5, 2, (4, 3))
    assert network.encoder.sizes == (5, 4, 3, 4)
    assert network.decoder.sizes == (2, 3, 4, 5)
    assert VAENetwork(5, 2, (4, 3), decoder_hidden=(7,)).decoder.sizes == (2, 7, 5)
    model = VAE(2, (4, 3), decoder_hidden=(), n_steps=1, rng=0).fit(with_covariance([2.0, 1.0, 0.5]))
    assert (model.network_.encoder.sizes, model.network_.decoder.sizes) == ((3, 4, 3, 4), (2, 3))


# --- the linear VAE: PPCA ---------------------------------------------------------------------------------

LEFT_OVER = 0.5  # mean of the two eigenvalues that two latents leave over


@pytest.fixture(scope="module")
def x():
    return with_covariance([5.0, 2.0, 0.8, 0.2])


@pytest.fixture(scope="module")
def best(x):
    """A linear VAE trained to the end."""
    return linear(n_latents=2).fit(x)


def test_linear_vae_reaches_the_maximum_of_ppca(best, x):
    """Lucas et al. 2019: the ELBO's maximum is the likelihood's, and the posterior is exact there."""
    ppca, model = PPCA(2).fit(x), best
    assert abs(model.elbo(x).mean() - ppca.score(x)) < 1e-9
    assert abs(model.decoder_variance_ - LEFT_OVER) < 1e-7
    assert residual(model.elbo(x), ppca.log_prob(x)) < 1e-5  # of every example, so the gap is closed everywhere
    mean, variance = model.encode(x)
    stretch = np.linalg.svd(ppca.components_)[1] ** 2
    assert residual(np.sort(variance[0]), np.sort(LEFT_OVER / (stretch + LEFT_OVER))) < 1e-5
    assert residual(mean @ mean.T, ppca.encode(x) @ ppca.encode(x).T) < 1e-4
    assert residual(((x - model.reconstruct(x)) ** 2).sum(axis=1), ((x - reconstruct(ppca, x)) ** 2).sum(axis=1)) < 1e-4


def test_grade_of_a_linear_vae_at_its_optimum_is_ppcas(best, x):
    grade, ppca = grade_linear_vae(best, x), PPCA(2).fit(x)
    assert abs(grade.elbo - grade.maximum) < 1e-9
    assert abs(grade.maximum - ppca.score(x)) < 1e-12
    assert abs(grade.log_prob - ppca.score(x)) < 1e-9
    assert abs(grade.variance - grade.best_variance) < 1e-7
    assert abs(grade.best_variance - LEFT_OVER) < 1e-12
    assert grade.angle < 1e-5
    assert (grade.n_active, grade.best_n_active) == (2, 2)
    assert abs(grade.least_gap) < 1e-9


def test_grade_of_a_linear_vae_away_from_its_optimum(best, x):
    """A rotated W has the same likelihood and a gap, ½(Σ log M_ii − log|M|) at least; a tilted one has an angle."""
    model = copy.deepcopy(best)
    turn = np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    model.network_.decoder.weights[0][:] = turn @ model.network_.decoder.weights[0]
    grade = grade_linear_vae(model, x)
    assert abs(grade.log_prob - grade.maximum) < 1e-9
    M = np.eye(2) + model.components_.T @ model.components_ / model.decoder_variance_
    exact = 0.5 * (np.log(np.diag(M)).sum() - np.linalg.slogdet(M)[1])
    assert grade.least_gap == pytest.approx(exact, rel=1e-12)
    assert exact > 0.05
    assert grade.log_prob - grade.elbo >= exact
    means, variances = linear_gaussian_mean_field(x, *linear_parameters(model))
    elbo = linear_gaussian_elbo(x, *linear_parameters(model), means, np.diag(variances)).mean()
    assert grade.log_prob - elbo == pytest.approx(exact, rel=1e-9)  # the same gap for every x, by the best encoder
    assert grade.angle < 1e-5
    U = np.linalg.svd(best.components_)[0]
    tilt = np.eye(4) + (np.cos(0.3) - 1) * (np.outer(U[:, 0], U[:, 0]) + np.outer(U[:, 3], U[:, 3]))
    tilt += np.sin(0.3) * (np.outer(U[:, 3], U[:, 0]) - np.outer(U[:, 0], U[:, 3]))
    model.network_.decoder.weights[0][:] = best.network_.decoder.weights[0] @ tilt.T
    assert grade_linear_vae(model, x).angle == pytest.approx(0.3, abs=1e-5)
    assert grade_linear_vae(model, x).log_prob < grade.maximum - 0.01


def test_grade_of_a_linear_vae_with_nothing_to_say():
    x = with_covariance([3.0, 1.0, 0.5, 0.1])
    grade = grade_linear_vae(linear(n_latents=2, decoder_variance=10.0, n_steps=500).fit(x), x)
    assert (grade.n_active, grade.best_n_active) == (0, 0)
    assert np.isnan(grade.angle)
    assert abs(grade.elbo - grade.maximum) < 1e-4


def test_active_directions_are_counted_alike_on_both_sides():
    """λ = 1.001 beside s² = 1 is not one, nor is a tie; and an angle to directions that are not unique is nan."""
    for eigenvalues, n in ([1.001, 0.5, 0.2], 0), ([3.0, 1.0, 1.0], 1), ([2.0, 2.0, 1.0], 2):
        x = with_covariance(eigenvalues)
        model = linear(n_latents=2, decoder_variance=1.0, standardize=False, n_steps=1).fit(x)
        model.network_.decoder.weights[0][:] = ppca_maximum(np.cov(x.T, bias=True), 2, 1.0)[0].T  # the optimum itself
        grade = grade_linear_vae(model, x)
        assert (grade.n_active, grade.best_n_active) == (n, n)
        assert np.isnan(grade.angle) == (n == 0)
        assert n == 0 or grade.angle < 1e-3
    tied = with_covariance([2.0, 2.0, 1.0])
    grade = grade_linear_vae(linear(n_latents=1, decoder_variance=1.0, standardize=False).fit(tied), tied)
    assert np.isnan(grade.angle)
    silent = copy.deepcopy(linear(n_latents=1, n_steps=5).fit(tied))
    silent.network_.decoder.weights[0][:] = 0
    assert np.isnan(grade_linear_vae(silent, tied).angle)
    apart = with_covariance([3.0, 1.0, 0.5])
    silent = linear(n_latents=1, n_steps=5).fit(apart)
    silent.network_.decoder.weights[0][:] = 0
    silent.network_.decoder.biases[0][:] += 1
    grade = grade_linear_vae(silent, apart)
    assert (grade.angle, grade.n_active, grade.best_n_active) == (np.pi / 2, 0, 1)
    assert grade.maximum == pytest.approx(PPCA(1).fit(apart).score(apart), abs=1e-12)  # not at the model's mean


def test_grade_of_as_many_latents_as_columns_is_closed_for_a_given_variance():
    x = with_covariance([3.0, 1.0, 0.5])
    grade = grade_linear_vae(linear(n_latents=4, decoder_variance=0.4, standardize=False, n_steps=3000).fit(x), x)
    assert abs(grade.elbo - grade.maximum) < 1e-4
    assert (grade.n_active, grade.best_n_active) == (3, 3)
    flat = np.random.default_rng(0).standard_normal((30, 1)) * [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match=r"^x lies in 1 dimensions or fewer"):
        grade_linear_vae(linear(n_latents=1, n_steps=1).fit(flat), flat)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"decoder_variance": "diag"}, 'model must have one decoder variance, got "diag"'), ({"n_latents": 4}, "fewer")],
    ids=["diag", "k = D"],
)
def test_grade_of_a_linear_vae_refuses_what_has_no_closed_form(parameters, words, x):
    with pytest.raises(ValueError, match=words):
        grade_linear_vae(linear(n_steps=1, **parameters).fit(x), x)


@pytest.mark.parametrize("beta", [0.25, 3.0])
def test_kl_weight_is_a_decoder_variance_in_disguise(beta, x):
    """‖x − x̂‖²/(2s²) + β KL is β times the loss at variance β s²: the same optimum, and no longer the ELBO's."""
    weighted = linear(n_latents=3, decoder_variance=0.2, kl_weight=beta, n_steps=2000).fit(x)
    other = linear(n_latents=3, decoder_variance=0.2 * beta, n_steps=2000).fit(x)
    gram, other_gram = (model.components_ @ model.components_.T for model in (weighted, other))
    assert residual(gram, other_gram) < 1e-4
    best = linear(n_latents=3, decoder_variance=0.2, n_steps=2000).fit(x)
    assert residual(gram, best.components_ @ best.components_.T) > 0.05
    grade = grade_linear_vae(weighted, x)
    assert grade.maximum - grade.elbo > 0.01
    assert abs(grade.maximum - best.elbo(x).mean()) < 1e-4
    mean, variance = weighted.encode(x)
    kl = 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(axis=1)
    assert abs(-weighted.losses_[-1] - (weighted.elbo(x) - (beta - 1) * kl).mean()) < 1e-6


def reconstruct(ppca, x):
    return ppca.encode(x) @ ppca.components_.T + ppca.mean_


def test_default_training_comes_close_to_ppca():
    """Minibatches, fresh noise and float32, as by default."""
    x = with_covariance([5.0, 2.0, 0.8, 0.2], n=400)
    model = VAE(2, hidden=(), n_steps=1000, learning_rate=1e-2, rng=0).fit(x)
    elbo = [
        model.elbo(x, rng=Scripted(lambda i, shape, u=u: np.broadcast_to(u, shape)), n_draws=1) for u in sigma_points(2)
    ]
    assert -1e-6 < PPCA(2).fit(x).score(x) - np.mean(elbo) < 0.03  # measured 0.004; exact, as the decoder is affine


@pytest.mark.parametrize(("variance", "n_active"), [(0.25, 3), (0.7, 2), (1.5, 1), (4.0, 0)])
def test_fixed_decoder_variance_switches_latents_off(variance, n_active):
    """A latent is active iff its eigenvalue exceeds s², W_i² = max(λ_i − s², 0): collapse, exactly predicted."""
    eigenvalues = np.array([3.0, 1.0, 0.5, 0.1])
    x = with_covariance(eigenvalues)
    model = linear(n_latents=3, decoder_variance=variance / eigenvalues.mean()).fit(x)  # in the model's units
    assert abs(model.decoder_variance_ - variance) < 1e-12
    kept = np.maximum(eigenvalues[:3] - variance, 0)
    stretch = np.linalg.svd(linear_parameters(model)[0])[1] ** 2
    assert residual(stretch, kept) < 1e-4
    assert (stretch > 0.05).sum() == n_active
    fitted = np.append(kept, 0) + variance
    maximum = -0.5 * (4 * np.log(2 * np.pi) + (np.log(fitted) + eigenvalues / fitted).sum())
    assert abs(model.elbo(x).mean() - maximum) < 1e-5


def linear_parameters(model):
    """W, mean and s² of a linear VAE, in data units, and mean and variance of its posterior."""
    network = model.network_
    W, mean = model.scale_ * network.decoder.weights[0].T, model.scale_ * network.decoder.biases[0] + model.mean_
    return W, mean, model.decoder_variance_


def test_linear_elbo_is_exact_and_needs_no_rng(x):
    """Also before the optimum, where the posterior is wrong and the gap is open."""
    model = linear(n_latents=2, n_steps=20).fit(x)
    q_mean, q_variance = model.encode(x)
    closed = [
        linear_gaussian_elbo(row[None], *linear_parameters(model), m[None], np.diag(v))[0]
        for row, m, v in zip(x, q_mean, q_variance, strict=True)
    ]
    assert residual(model.elbo(x), np.array(closed)) < 1e-12
    assert model.elbo(x).tobytes() == model.elbo(x, rng=5).tobytes()
    assert residual(model.log_prob(x), linear_gaussian_log_prob(x, *linear_parameters(model))) < 1e-12
    assert (model.log_prob(x) - model.elbo(x)).min() > 1e-3


def test_losses_are_minus_the_mean_elbo_in_data_units(x):
    model, before = linear(n_latents=2, n_steps=30), None
    for state in model.train(x):
        if before is not None:
            assert abs(state.loss + before) < 1e-12
        assert model.losses_[-1] == state.loss
        assert len(model.losses_) == state.step
        before = float(model.elbo(x).mean())


@pytest.mark.parametrize("standardize", [True, False])
def test_linear_vae_draws_from_its_own_gaussian(standardize, x):
    """sample() is affine in its normal numbers: one call at 0 and at unit vectors reads off mean and covariance."""
    model = linear(n_latents=2, n_steps=50, standardize=standardize).fit(x)
    units = np.vstack([np.zeros(2 + 4), np.eye(2 + 4)])
    rng = Scripted(lambda i, shape: units[:, :2] if i == 0 else units[:, 2:])
    draws = model.sample(7, rng=rng)
    assert rng.calls == 2
    jacobian = (draws[1:] - draws[0]).T
    W, mean, variance = linear_parameters(model)
    assert residual(draws[0], mean) < 1e-12
    assert residual(jacobian @ jacobian.T, W @ W.T + variance * np.eye(4)) < 1e-12


def test_linear_vae_draws_normal_numbers(best):
    """The same by chance, so that the numbers drawn are tested too; a decoder variance twice too large is found."""
    W, mean, variance = linear_parameters(best)
    draws = best.sample(3000, rng=1)
    right, wrong = (Mixture([1.0], mean[None], [W @ W.T + s2 * np.eye(4)]) for s2 in (variance, 2 * variance))
    assert passes_as_sample(draws, right)
    assert not passes_as_sample(draws, wrong)


# --- a nonlinear VAE with one latent: everything by quadrature --------------------------------------------

ROWS = 6


@pytest.fixture(scope="module")
def curve():
    """A VAE briefly trained on an arc, and some examples."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 3, 300)
    x = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.2 * rng.standard_normal((300, 2)) + [5, 0]
    parameters = {"activation": "tanh", "dtype": "float64", "learning_rate": 1e-2, "rng": 0}
    return VAE(1, hidden=(8,), n_steps=400, **parameters).fit(x), x[:ROWS]


def latent_grid(model, n=8001):
    z = np.linspace(-9, 9, n)[:, None]
    step = z[1, 0] - z[0, 0]
    means = model.decode(z)
    steepest = np.abs(np.diff(means, axis=0)).max() / step
    assert step < 0.5 * model.decoder_variance_**0.5 / steepest  # a coarser grid is wrong without any sign of it
    return z[:, 0], means, step


def log_joint(model, x):
    """log p_θ(x, z) on the grid, (N, M), from `decode` and `decoder_variance_` alone; the grid and its spacing."""
    z, means, step = latent_grid(model)
    decoder = stats.norm.logpdf(x[:, None], means, model.decoder_variance_**0.5).sum(axis=2)
    return decoder + stats.norm.logpdf(z), z, step


def at_nodes(verb, x, nodes, **keywords):
    """verb(x) for given latent noise instead of drawn: nodes (M, n_draws) to values (N, M)."""
    M, n_draws = nodes.shape
    rng = Scripted(lambda i, shape: np.tile(nodes.T, (1, len(x)))[:, :, None])
    values = verb(np.repeat(x, M, axis=0), rng=rng, n_draws=n_draws, **keywords)
    assert rng.calls == 1
    return values.reshape(len(x), M)


def normal_rule(n, reach=9.0):
    """Trapezoid nodes and log weights for expectations over N(0, 1)."""
    xi = np.linspace(-reach, reach, n)
    return xi[:, None], stats.norm.logpdf(xi) + np.log(xi[1] - xi[0])


def test_elbo_gap_is_the_kl_to_the_posterior(curve):
    model, x = curve
    joint, z, step = log_joint(model, x)
    log_prob = logsumexp(joint, axis=1) + np.log(step)
    mean, variance = model.encode(x)
    q = stats.norm.logpdf(z, mean, variance**0.5)
    kl = (np.exp(q) * (q - (joint - log_prob[:, None]))).sum(axis=1) * step
    nodes, log_weights = normal_rule(401)
    elbo = at_nodes(model.elbo, x, nodes) @ np.exp(log_weights)
    assert residual(log_prob - elbo, kl) < 1e-8
    assert kl.min() > 1e-4  # the gap is there to be seen


def test_grade_is_the_evidence_and_the_kl_to_the_posterior(curve):
    """4.2f: the same two numbers by another grid and from `decode` and `encode` alone."""
    model, x = curve
    grade = grade_vae(model, x)
    joint, z, step = log_joint(model, x)
    log_prob = logsumexp(joint, axis=1) + np.log(step)
    assert residual(grade.log_prob, log_prob) < 1e-9
    mean, variance = model.encode(x)
    q = stats.norm.logpdf(z, mean, variance**0.5)
    kl = (np.exp(q) * (q - (joint - log_prob[:, None]))).sum(axis=1) * step
    assert residual(grade.gap, kl) < 1e-8


def test_grade_of_a_linear_vae_is_closed(x):
    """p_θ(x) is a Gaussian; at the best diagonal q of one latent the gap is 0."""
    model = linear(n_latents=1, n_steps=2000).fit(x)
    grade = grade_vae(model, x)
    assert residual(grade.log_prob, linear_gaussian_log_prob(x, *linear_parameters(model))) < 1e-9
    assert np.abs(grade.gap).max() < 1e-4
    assert residual(grade.log_prob - grade.gap, model.elbo(x)) < 1e-9


def test_grade_of_what_is_far_from_all_that_the_model_draws(x):
    """Its posterior lies beyond z = 9: nodes follow it, or the function says so."""
    model = linear(n_latents=1, n_steps=300).fit(x)
    far = (model.decoder_mean_ + np.array([[9.0], [13.0], [40.0], [300.0]]) * model.components_[:, 0]).reshape(4, -1)
    grade = grade_vae(model, far)
    assert residual(grade.log_prob, model.log_prob(far)) < 1e-9
    assert residual(grade.log_prob - grade.gap, model.elbo(far)) < 1e-9
    with pytest.raises(ArithmeticError, match=r"^the posterior of an x reaches beyond .* leave it out"):
        grade_vae(model, model.decoder_mean_ + 3000 * model.components_.T)
    for function in grade_vae, gaussian_gap:
        with pytest.raises(TypeError, match=r"^model must be a VAE, got PPCA"):
            function(PPCA(1).fit(x), x)
    with pytest.raises(TypeError, match=r"^model must be a LinearVAE, got VAE"):
        grade_linear_vae(VAE(1, n_steps=1).fit(x), x)


def test_grade_of_a_binned_vae_is_a_mass():
    x = np.random.default_rng(0).integers(0, 5, (100, 2)).astype(float)
    model = VAE(1, (8,), n_levels=5, n_steps=200, dtype="float64", rng=0).fit(x)
    every = np.array(np.meshgrid(*[np.arange(5.0)] * 2)).reshape(2, -1).T
    assert (gaussian_gap(model, every) <= grade_vae(model, every).gap + 1e-9).all()
    grade = grade_vae(model, every)
    assert np.exp(grade.log_prob).sum() == pytest.approx(1, abs=1e-9)
    assert np.all(grade.gap >= -1e-9)
    elbo = model.elbo(every, rng=0, n_draws=2000)
    assert residual(grade.log_prob - grade.gap, elbo) < 0.05


def test_grade_refuses_what_it_cannot_integrate(curve):
    model, x = curve
    with pytest.raises(ArithmeticError, match=r"^the decoder moves by .* pass n_nodes=") as error:
        grade_vae(model, x, n_nodes=21)
    suggested = int(str(error.value).split("n_nodes=")[1])
    assert residual(grade_vae(model, x, suggested).log_prob, grade_vae(model, x).log_prob) < 1e-6
    with pytest.raises(ValueError, match=r"^model must have one latent for an exact integral, got 2"):
        grade_vae(linear(n_latents=2, n_steps=1).fit(x), x)


def test_elbo_is_the_mean_of_its_draws(curve):
    model, x = curve
    nodes = np.random.default_rng(0).standard_normal((1, 5))
    single = [at_nodes(model.elbo, x, nodes[:, [i]]) for i in range(5)]
    assert residual(at_nodes(model.elbo, x, nodes), np.mean(single, axis=0)) < 1e-12


def test_importance_weights_average_to_the_evidence(curve):
    """E_q p_θ(x, z)/q(z | x) = p_θ(x), exactly, and E_q log of it is the ELBO."""
    model, x = curve
    joint, _, step = log_joint(model, x)
    log_prob = logsumexp(joint, axis=1) + np.log(step)
    nodes, log_weights = normal_rule(4001, reach=60.0)
    log_ratio = at_nodes(model.iwae, x, nodes)
    assert residual(logsumexp(log_ratio + log_weights, axis=1), log_prob) < 1e-8
    elbo = at_nodes(model.elbo, x, nodes) @ np.exp(log_weights)
    assert residual(log_ratio @ np.exp(log_weights), elbo) < 1e-10


def test_importance_weighted_bound_is_a_log_mean(curve):
    model, x = curve
    nodes = np.random.default_rng(0).standard_normal((1, 7))
    single = np.stack([at_nodes(model.iwae, x, nodes[:, [i]]) for i in range(7)])
    assert residual(at_nodes(model.iwae, x, nodes), logsumexp(single, axis=0) - np.log(7)) < 1e-12


def test_importance_weighting_lies_between_elbo_and_evidence(curve):
    """Expectations over one and two draws by quadrature: the ladder, with every rung strict."""
    model, x = curve
    joint, _, step = log_joint(model, x)
    log_prob = logsumexp(joint, axis=1) + np.log(step)
    nodes, log_weights = normal_rule(81)
    pairs = np.stack(np.meshgrid(nodes[:, 0], nodes[:, 0]), axis=-1).reshape(-1, 2)
    one = at_nodes(model.iwae, x, nodes) @ np.exp(log_weights)
    two = at_nodes(model.iwae, x, pairs) @ np.exp(np.add.outer(log_weights, log_weights).ravel())
    assert (one + 1e-5 < two).all()
    assert (two + 1e-5 < log_prob).all()


def test_bounds_draw_standard_normal_noise(curve):
    """With many draws of a Generator: within 5.5 standard errors, each fails once in 2e7."""
    model, x = curve
    nodes, log_weights = normal_rule(401)
    at_node = at_nodes(model.elbo, x, nodes)
    elbo = at_node @ np.exp(log_weights)
    spread = np.sqrt(at_node**2 @ np.exp(log_weights) - elbo**2)
    n = 4000
    assert (abs(model.elbo(x, rng=0, n_draws=n) - elbo) < 5.5 * spread / n**0.5).all()
    assert (abs(model.elbo(x, rng=0, n_draws=1) - elbo) > 0).all()
    repeated = np.repeat(x[:1], n, axis=0)  # examples must not share their noise
    assert abs(model.elbo(repeated, rng=0, n_draws=1).mean() - elbo[0]) < 5.5 * spread[0] / n**0.5
    assert len(np.unique(model.elbo(repeated, rng=0, n_draws=1))) == n
    log_weight = at_nodes(model.iwae, x[:1], nodes)  # whose mean is the ELBO as well
    spread = np.sqrt((log_weight - elbo[0]) ** 2 @ np.exp(log_weights))[0]
    drawn = model.iwae(repeated, rng=0, n_draws=1)
    assert abs(drawn.mean() - elbo[0]) < 5.5 * spread / n**0.5
    assert len(np.unique(drawn)) == n


def test_nonlinear_vae_draws_a_code_decodes_it_and_adds_noise(curve):
    model, _ = curve
    z, noise = np.linspace(-2, 2, 5)[:, None], np.arange(10.0).reshape(5, 2)
    draws = model.sample(5, rng=Scripted(lambda i, shape: [z, noise][i]))
    assert residual(draws, model.decode(z) + model.decoder_variance_**0.5 * noise) < 1e-14


def test_latent_codes_are_the_encoders(curve):
    model, x = curve
    mean, variance = model.encode(x)
    output = model.network_.encoder(model.to_model(x))
    assert (mean == output[:, :1]).all()
    assert residual(variance, np.exp(output[:, 1:])) < 1e-15
    assert (model.reconstruct(x) == model.decode(mean)).all()
    assert residual(model.decode(mean), model.to_data(model.network_.decoder(mean))) < 1e-15
    with pytest.raises(ValueError, match="z must have 1 columns"):
        model.decode(np.zeros((2, 3)))


# --- one latent: what a Gaussian posterior costs ----------------------------------------------------------


@given(st.floats(-3, 3), st.floats(0.05, 2))
def test_nearest_gaussian_of_a_gaussian_is_itself(mean, std):
    z = np.linspace(-25, 25, 4001)
    found_mean, found_std, kl = nearest_gaussian(z, stats.norm.logpdf(z, mean, std) + 7.0)
    assert abs(found_mean - mean) < 1e-6
    assert abs(found_std - std) < 1e-6
    assert abs(kl) < 1e-10


@pytest.mark.parametrize("weight", [0.3, 0.6])
def test_nearest_gaussian_takes_the_heavier_of_two_far_modes(weight):
    """KL(q‖p) is then −log of its weight; descent from p's own moments would end between the modes."""
    z = np.linspace(-20, 20, 4001)
    parts = np.log(weight) + stats.norm.logpdf(z, -8, 1), np.log(1 - weight) + stats.norm.logpdf(z, 7, 0.5)
    mean, std, kl = nearest_gaussian(z, np.logaddexp(*parts))
    assert (mean, std) == pytest.approx((-8, 1) if weight > 0.5 else (7, 0.5), abs=1e-5)
    assert kl == pytest.approx(-np.log(max(weight, 1 - weight)), abs=1e-8)


@pytest.mark.parametrize("steepness", [10.0, 100.0, 1e3])
def test_nearest_gaussian_pays_for_mass_beyond_an_edge(steepness):
    """A flat top with edges −steepness (|z| − 3): no Gaussian of a fine grid is nearer, and the KL is the whole one."""
    z = np.linspace(-9, 9, 4001)
    log_p = -steepness * np.maximum(np.abs(z) - 3, 0)
    mean, std, kl = nearest_gaussian(z, log_p)
    log_p = log_p - logsumexp(log_p) - np.log(z[1] - z[0])

    def loss(std):
        log_q = stats.norm.logpdf(z, 0, std)
        return (np.exp(log_q) * (log_q - log_p)).sum() * (z[1] - z[0])

    assert abs(mean) < 1e-5
    assert kl == pytest.approx(loss(std), abs=1e-9)
    assert kl <= min(loss(s) for s in std * np.linspace(0.7, 1.3, 61)) + 1e-9
    assert kl > 0


def test_nearest_gaussian_refuses_what_has_no_gaussian_near():
    z = np.linspace(-9, 9, 401)
    for log_p in np.where(abs(z) < 3, 0, -np.inf), np.full(401, np.nan):
        with pytest.raises(ValueError, match=r"^log_density must be finite"):
            nearest_gaussian(z, log_p)
    with pytest.raises(ValueError, match=r"^z and log_density must have one shape"):
        nearest_gaussian(z, z[:-1])
    for log_p in 0 * z, np.where(z > 8.9, 0.0, -50.0):
        with pytest.raises(ValueError, match=r"^z must reach well beyond p"):
            nearest_gaussian(z, log_p)
    with pytest.raises(ArithmeticError, match=r"^the nearest Gaussian, .* pass a finer or wider z"):
        nearest_gaussian(z, -0.5 * (z / 0.03) ** 2)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_nearest_gaussian_has_no_unit(unit):
    z = unit * np.linspace(-20, 20, 2001)
    mean, std, kl = nearest_gaussian(z, -0.5 * ((z / unit - 1) / 2) ** 2)
    assert (mean / unit, std / unit, kl) == pytest.approx((1, 2, 0), abs=1e-5)


def test_nearest_gaussian_is_the_nearest_of_many():
    """A skew density: no Gaussian of a fine grid of means and widths is nearer."""
    z = np.linspace(-9, 9, 2001)
    log_p = stats.norm.logpdf(z) + stats.norm.logcdf(4 * z)
    mean, std, kl = nearest_gaussian(z, log_p)
    log_p = log_p - logsumexp(log_p) - np.log(z[1] - z[0])
    for m, s in itertools.product(mean + np.linspace(-0.2, 0.2, 21), std * np.linspace(0.8, 1.2, 21)):
        log_q = stats.norm.logpdf(z, m, s)
        assert (np.exp(log_q) * (log_q - log_p)).sum() * (z[1] - z[0]) >= kl - 1e-12
    assert 0.01 < kl < 0.2


def test_no_encoder_beats_the_nearest_gaussian(curve):
    model, x = curve
    gap, least = grade_vae(model, x).gap, gaussian_gap(model, x)
    assert (least > 1e-5).all()
    assert (gap >= least - 1e-9).all()
    joint, z, step = log_joint(model, x)
    for row, kl in zip(joint, least, strict=True):  # by another grid, and from the moments alone
        log_p = row - logsumexp(row) - np.log(step)

        def loss(theta, log_p=log_p):
            log_q = stats.norm.logpdf(z, theta[0], np.exp(theta[1]))
            return (np.exp(log_q) * (log_q - log_p)).sum() * step

        mean = np.exp(log_p) @ z * step
        start = [mean, 0.5 * np.log(np.exp(log_p) @ (z - mean) ** 2 * step)]
        assert abs(optimize.minimize(loss, start, method="Nelder-Mead", tol=1e-10).fun - kl) < 1e-8


def test_a_linear_decoder_has_gaussian_posteriors(x):
    model = linear(n_latents=1, n_steps=50).fit(x)
    assert np.abs(gaussian_gap(model, x[:5])).max() < 1e-9
    assert grade_vae(model, x[:5]).gap.min() > 1e-3  # its encoder is not there yet
    with pytest.raises(ValueError, match=r"^model must have one latent for an exact integral, got 2"):
        gaussian_gap(linear(n_latents=2, n_steps=1).fit(x), x)


@given(mixtures(max_dimension=1), st.floats(0.3, 2))
def test_transport_decoder_has_the_marginal_of_p_with_noise(truth, s):
    """E35: ∫ N(x; f(z), s²) N(z) dz = p ∗ N(0, s²), by the trapezoid rule over z; so it comes near any p."""
    truth = Mixture(truth.weights, truth.means / 3, truth.covariances)  # over a deep valley f would jump
    f = transport_decoder(truth)
    z, step = np.linspace(-9, 9, 20001, retstep=True)
    x_hat = f(z)
    assert (np.diff(x_hat) >= 0).all()
    assert np.abs(np.diff(x_hat)).max() < 0.5 * s
    law = truth.diffuse(1.0, s)
    x = law.mean()[0] + law.covariance()[0, 0] ** 0.5 * np.linspace(-3, 3, 9)
    log_terms = stats.norm.logpdf(x[:, None], x_hat, s) + stats.norm.logpdf(z) + np.log(step)
    assert residual(logsumexp(log_terms, axis=1), law.log_prob(x[:, None])) < 1e-8


def test_transport_decoder_of_very_different_scales_is_monotone():
    truth = Mixture([0.99, 0.01], [[0.0], [5.0]], [[[1e-6]], [[1e4]]])
    z = np.linspace(-4, 4, 801)
    x = transport_decoder(truth)(z)
    assert (np.diff(x) > 0).all()
    means, stds = truth.means[:, 0], truth.covariances[:, 0, 0] ** 0.5
    reached = (truth.weights * stats.norm.cdf(x[:, None], means, stds)).sum(axis=1)
    assert np.abs(reached - stats.norm.cdf(z)).max() < 1e-9


def test_neither_gaussian_of_a_vae_is_a_limit_on_the_line():
    """KL(p‖p_θ) and the least gap of a Gaussian posterior, as s falls: the first always, the second in the end."""
    truth = datasets.gaussians_1d()
    f = transport_decoder(truth)
    model_gaps = [truth.kl(truth.diffuse(1.0, s).log_prob) for s in (0.2, 0.1, 0.05, 0.02)]
    assert (np.diff(model_gaps) < 0).all()
    assert model_gaps[-1] < 3e-5
    assert entropy_gaussian(truth.covariance()) - truth.entropy() > 0.4  # what a Gaussian marginal would cost
    z, point = np.linspace(-9, 9, 80001), -0.3
    gaps = [nearest_gaussian(z, -0.5 * ((point - f(z)) / s) ** 2 - 0.5 * z**2)[2] for s in (0.2, 0.1, 0.05, 0.02)]
    assert gaps[0] > 0.2
    assert gaps[-1] < 0.1


def test_transport_decoder_is_for_the_line():
    with pytest.raises(ValueError, match=r"^truth must be a Mixture on the line, got 2 dimensions"):
        transport_decoder(datasets.gaussians_2d())


# --- training ---------------------------------------------------------------------------------------------


def test_training_draws_fresh_noise_and_fresh_batches(monkeypatch):
    seen = []
    loss = VAENetwork.loss

    def spy(self, x, noise, kl_weight):
        seen.append((x.copy(), noise.copy()))
        return loss(self, x, noise, kl_weight)

    monkeypatch.setattr(VAENetwork, "loss", spy)
    x = np.arange(20.0)[:, None] + np.zeros(2)
    model = VAE(3, hidden=(), n_steps=200, batch_size=32, rng=0).fit(x)
    assert {(a.shape, b.shape) for a, b in seen} == {((32, 2), (32, 3))}
    noise = np.concatenate([b for _, b in seen]).ravel()
    assert len(np.unique(noise)) > 0.99 * len(noise)
    assert stats.kstest(noise, "norm").pvalue > FALSE_ALARM
    rows = np.rint(model.to_data(np.concatenate([a for a, _ in seen])))[:, 0]
    assert stats.chisquare(np.unique_counts(rows).counts).pvalue > FALSE_ALARM
    assert len(np.unique(rows)) == 20


def test_sigma_training_pairs_every_example_with_every_point(monkeypatch):
    seen = []
    loss = VAENetwork.loss
    monkeypatch.setattr(VAENetwork, "loss", lambda self, x, noise, _: seen.append((x, noise)) or loss(self, x, noise))
    x = with_covariance([2.0, 1.0, 0.5], n=5)
    model = linear(n_latents=2, n_steps=1).fit(x)
    ((batch, noise),) = seen
    pairs = {(*row, *point) for row, point in zip(batch.tolist(), noise.tolist(), strict=True)}
    assert len(batch) == len(pairs) == 5 * 4
    assert pairs == {(*row, *point) for row in model.to_model(x).tolist() for point in sigma_points(2).tolist()}


@pytest.mark.parametrize("standardize", [True, False])
def test_given_decoder_variance_is_kept(standardize):
    x = with_covariance([4.0, 1.0])
    model = VAE(1, hidden=(3,), decoder_variance=0.3, n_steps=5, standardize=standardize, rng=0).fit(x)
    assert abs(model.decoder_variance_ / (0.3 * model.scale_**2) - 1) < 1e-6  # float32
    assert model.scale_ == 1 or standardize


def test_learned_decoder_variance_is_the_mean_squared_error_of_its_own_reconstructions(best, x):
    """On noisy codes, as in the loss: E‖x − x̂(z)‖²/D with z ~ q(z | x)."""
    mean, variance = best.encode(x)
    errors = [x - best.decode(mean + variance**0.5 * point) for point in sigma_points(2)]
    assert abs(best.decoder_variance_ - np.mean(np.square(errors))) < 1e-7


# --- decoders ---------------------------------------------------------------------------------------------


@st.composite
def binned_networks(draw):
    """A small float64 network on levels 0..L−1, with one variance or one a dimension, and its batch and noise."""
    seed, n_levels = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([None, 2, 17]))
    n_variances = draw(st.sampled_from([1, 3]))
    rng = np.random.default_rng(seed)
    network = VAENetwork(3, 2, (4,), rng=rng, dtype=np.float64, n_variances=n_variances, n_levels=n_levels)
    network.log_variance[:] = rng.uniform(-4, 1, n_variances)
    x = (
        rng.standard_normal((5, 3))
        if n_levels is None
        else 2 * rng.integers(n_levels, size=(5, 3)) / (n_levels - 1) - 1
    )
    return network, x, rng.standard_normal((5, 2))


@given(binned_networks())
def test_gradient_of_every_decoder_is_its_derivative(drawn):
    """Gaussian or in bins, one variance or one a dimension: every parameter of all three parts."""
    network, x, noise = drawn
    ends = np.cumsum([len(parameters) for parameters, _ in network.parts])[:-1]

    def loss(flat):
        for (parameters, _), values in zip(network.parts, np.split(flat, ends), strict=True):
            parameters[:] = values
        return network.loss(x, noise).mean()

    def gradient(flat):
        loss(flat)
        return np.concatenate([gradient for _, gradient in network.parts])

    start = np.concatenate([parameters for parameters, _ in network.parts])
    dense = np.cos(np.outer([1, 2], range(len(start))))
    directions = np.concatenate([np.eye(len(start))[-len(network.log_variance) :], dense])
    check = check_gradient(loss, gradient, start, directions)
    assert check, check


@given(st.sampled_from([2, 17, 256]), st.floats(0.01, 2), reals((6,), -1.5, 1.5))
def test_slopes_of_bin_masses_are_their_derivatives(n_levels, std, means):
    levels = np.arange(n_levels)[:, None]
    log_mass, by_mean, by_log_variance = log_bin_mass_slopes(levels, means, std, n_levels)
    assert np.array_equal(log_mass, log_bin_mass(levels, means, std, n_levels))
    numeric = central_difference(lambda h: log_bin_mass(levels, means + h * std, std, n_levels), 1e-3)
    assert np.abs(by_mean * std - numeric).max() < 1e-8 * (1 + np.abs(numeric).max())
    numeric = central_difference(lambda h: log_bin_mass(levels, means, std * np.exp(h / 2), n_levels), 1e-3)
    assert np.abs(by_log_variance - numeric).max() < 1e-8 * (1 + np.abs(numeric).max())


def test_binned_vae_bounds_the_mass_of_whole_numbers():
    """One latent: E_q log w <= log P(x) by a fine grid of z, and the masses of all x sum to one."""
    x = np.random.default_rng(0).integers(0, 3, (200, 2)).astype(float)
    x[:, 1] = x[:, 0]
    model = VAE(1, (8,), n_levels=3, n_steps=300, dtype="float64", rng=0).fit(x)
    every = np.array(np.meshgrid(*[np.arange(3.0)] * 2)).reshape(2, -1).T
    z, step = np.linspace(-9, 9, 2001, retstep=True)
    x_hat = model.network_.decoder(z[:, None])
    prior = step * stats.norm.pdf(z)
    log_p = [model.network_.log_decoder(np.broadcast_to(row - 1, x_hat.shape), x_hat) for row in every]
    mass = np.exp(log_p) @ prior
    assert mass.sum() == pytest.approx(1, abs=1e-9)
    elbo = model.elbo(every, rng=0, n_draws=1000)
    assert np.all(elbo <= np.log(mass) + 0.1)
    assert np.all(model.iwae(every, n_draws=3000, rng=0) == pytest.approx(np.log(mass), abs=0.15))
    drawn = model.sample(50_000, rng=1)
    observed = [(drawn == row).all(axis=1).sum() for row in every]
    assert stats.chisquare(observed, 50_000 * mass / mass.sum()).pvalue > 1e-7
    assert set(np.unique(drawn)) <= {0.0, 1.0, 2.0}


def test_variance_of_every_dimension_is_its_own_mean_square(x):
    """decoder_variance="diag" on a linear VAE: factor analysis, whose maximum it reaches."""
    model = linear(n_latents=1, decoder_variance="diag", n_steps=2000, learning_rate=0.02).fit(x)
    best = FactorAnalysis(model.n_latents, tol=1e-7, max_iter=1000, rng=0).fit(x)
    assert model.decoder_variance_.shape == (x.shape[1],)
    assert model.elbo(x).mean() <= best.score(x) + 1e-4
    assert model.elbo(x).mean() == pytest.approx(best.score(x), abs=2e-3)


def test_diverged_training_is_an_error():
    x = 1e3 + np.random.default_rng(0).standard_normal((50, 3))
    with (
        np.errstate(all="ignore"),
        pytest.raises(ArithmeticError, match=r"^training diverged: the loss of step \d+ is (nan|inf); lower"),
    ):
        VAE(1, (8,), n_steps=200, learning_rate=1e3, standardize=False, rng=0).fit(x * 1e5)


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"hidden": 64}, TypeError, r"hidden must be a sequence of layer widths, got 64; one layer of 64 is \(64,\)"),
        ({"decoder_hidden": "wide"}, TypeError, "decoder_hidden must be a sequence"),
        ({"decoder_variance": "full"}, ValueError, "decoder_variance must be a number, None or 'diag', got 'full'"),
        ({"decoder_variance": np.ones(3)}, TypeError, "decoder_variance must be a number"),
    ],
    ids=repr,
)
def test_parameters_that_will_not_do_are_named(parameters, error, words, x):
    with pytest.raises(error, match=rf"^{words}"):
        VAE(1, **parameters).fit(x)


def test_a_variance_of_its_own_for_a_constant_column_is_refused(x):
    with pytest.raises(ValueError, match=r"^x must vary in every column for decoder_variance='diag', but column 4 is"):
        VAE(1, decoder_variance="diag").fit(np.column_stack([x, np.full(len(x), 7.0)]))


def test_a_fitted_model_keeps_its_network_when_parameters_change(x):
    model = linear(n_latents=2, n_steps=20).fit(x)
    before = model.sample(3, rng=0), model.elbo(x), model.decode(np.zeros((1, 2)))
    model.set_params(n_latents=3)
    for old, new in zip(before, (model.sample(3, rng=0), model.elbo(x), model.decode(np.zeros((1, 2)))), strict=True):
        assert np.array_equal(old, new)


def test_binned_vae_comes_back_from_a_file_and_refuses_what_is_no_level(tmp_path):
    x = np.random.default_rng(0).integers(0, 5, (50, 3)).astype(float)
    model = VAE(1, (4,), n_levels=5, decoder_variance="diag", n_steps=10, rng=0).fit(x)
    model.save(tmp_path / "m.npz")
    assert np.array_equal(VAE.load(tmp_path / "m.npz").elbo(x, rng=0), model.elbo(x, rng=0))
    for wrong in x + 0.5, x - 1, x + 4:
        with pytest.raises(ValueError, match=r"^x must hold whole numbers in 0\.\.4, as n_levels says"):
            VAE(1, n_levels=5).fit(wrong)
        for verb in model.elbo, model.iwae, model.encode:
            with pytest.raises(ValueError, match=r"^x must hold whole numbers in 0\.\.4, as n_levels says"):
                verb(wrong)
