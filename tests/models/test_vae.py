"""VAE and LinearVAE: training, bounds and samples against exact answers.

Expectations over the latent noise are sums over nodes, which a scripted Generator supplies.  The few statistical tests
fail for correct code once in 1e7 runs.
"""

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from scratchgen import PPCA, VAE, FactorAnalysis, Mixture
from scratchgen.grading import grade_linear_vae
from scratchgen.metrics import two_sample_accuracy
from scratchgen.quadrature import sigma_points
from scratchgen.vae import VAENetwork, reconstruction_error, train_step
from scratchgen.variational import linear_gaussian_elbo, linear_gaussian_log_prob
from tests.strategies import FALSE_ALARM, Scripted, passes_as_sample, residual
from tests.vaes import ARCS, arc, linear, linear_parameters, log_joint, with_covariance

LEFT_OVER = 0.5  # mean of the two eigenvalues that two latents do not explain


def test_encoder_and_decoder_mirror_each_other_unless_the_decoder_has_its_own_layers():
    network = VAENetwork(5, 2, (4, 3))
    assert network.encoder.sizes == (5, 4, 3, 4)
    assert network.decoder.sizes == (2, 3, 4, 5)
    assert VAENetwork(5, 2, (4, 3), decoder_hidden=(7,)).decoder.sizes == (2, 7, 5)
    model = VAE(2, (4, 3), decoder_hidden=(), n_steps=1, rng=0).fit(with_covariance([2.0, 1.0, 0.5]))
    assert (model.network_.encoder.sizes, model.network_.decoder.sizes) == ((3, 4, 3, 4), (2, 3))


@pytest.fixture(scope="module")
def x():
    return with_covariance([5.0, 2.0, 0.8, 0.2])


@pytest.fixture(scope="module")
def best(x):
    """A linear VAE after complete training."""
    return linear(n_latents=2).fit(x)


def test_linear_vae_reaches_the_maximum_of_ppca(best, x):
    """Lucas et al. 2019: the maximum of the ELBO is that of the likelihood, and there the posterior is exact."""
    ppca, model = PPCA(2).fit(x), best
    assert abs(model.elbo(x).mean() - ppca.score(x)) < 1e-9
    assert abs(model.decoder_variance_ - LEFT_OVER) < 1e-7
    assert residual(model.elbo(x), ppca.log_prob(x)) < 1e-5  # of every example: the gap is 0 everywhere
    mean, variance = model.encode(x)
    stretch = np.linalg.svd(ppca.components_)[1] ** 2
    assert residual(np.sort(variance[0]), np.sort(LEFT_OVER / (stretch + LEFT_OVER))) < 1e-5
    assert residual(mean @ mean.T, ppca.encode(x) @ ppca.encode(x).T) < 1e-4
    assert residual(((x - model.reconstruct(x)) ** 2).sum(axis=1), ((x - reconstruct(ppca, x)) ** 2).sum(axis=1)) < 1e-4


@pytest.mark.parametrize("beta", [0.25, 3.0])
def test_a_kl_weight_is_equivalent_to_another_decoder_variance(beta, x):
    """‖x − x̂‖²/(2s²) + β KL is β times the loss at variance β s²: the same optimum, which is not that of the ELBO."""
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


@pytest.mark.parametrize("standardize", [True, "global"])
def test_default_training_comes_close_to_ppca(standardize):
    """Minibatches, fresh noise and float32, as in the default; PPCA of x, or of columns with variance 1 each."""
    x = with_covariance([5.0, 2.0, 0.8, 0.2], n=400)
    model = VAE(2, hidden=(), n_steps=1000, learning_rate=1e-2, standardize=standardize, rng=0).fit(x)
    scale = x.std(axis=0) if standardize is True else np.ones(4)
    best = PPCA(2).fit(x / scale).score(x / scale) - np.log(scale).sum()
    elbo = [
        model.elbo(x, rng=Scripted(lambda i, shape, u=u: np.broadcast_to(u, shape)), n_draws=1) for u in sigma_points(2)
    ]
    assert -1e-6 < best - np.mean(elbo) < 0.03  # measured 0.003; exact, because the decoder is affine


@pytest.mark.parametrize(("variance", "n_active"), [(0.25, 3), (0.7, 2), (1.5, 1), (4.0, 0)])
def test_fixed_decoder_variance_switches_latents_off(variance, n_active):
    """A latent is active if and only if its eigenvalue exceeds s², with W_i² = max(λ_i − s², 0): exact collapse."""
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


def test_linear_elbo_is_exact_and_needs_no_rng(x):
    """Also before the optimum, where the posterior is wrong and the gap is not 0."""
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


@pytest.mark.parametrize("standardize", [True, "global", False])
def test_linear_vae_draws_from_its_own_gaussian(standardize, x):
    """sample() is affine in its normal numbers: one call at 0 and at unit vectors gives mean and covariance."""
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
    """Statistical, to test the drawn numbers too; a decoder variance that is twice too large fails."""
    W, mean, variance = linear_parameters(best)
    draws = best.sample(3000, rng=1)
    right, wrong = (Mixture([1.0], mean[None], [W @ W.T + s2 * np.eye(4)]) for s2 in (variance, 2 * variance))
    assert passes_as_sample(draws, right)
    assert not passes_as_sample(draws, wrong)


@pytest.fixture(scope="module", params=ARCS.values(), ids=ARCS.keys())
def curve(request):
    return arc(**request.param)


def at_nodes(verb, x, nodes, **keywords):
    """verb(x) for given latent noise in place of draws: nodes (M, n_draws) to values (N, M)."""
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
    assert kl.min() > 1e-4  # the gap is not 0


def test_importance_weights_average_to_the_evidence(curve):
    """E_q p_θ(x, z)/q(z | x) = p_θ(x) exactly, and E_q of its logarithm is the ELBO."""
    model, x = curve
    joint, _, step = log_joint(model, x)
    log_prob = logsumexp(joint, axis=1) + np.log(step)
    nodes, log_weights = normal_rule(4001, reach=60.0)
    log_ratio = at_nodes(model.iwae, x, nodes)
    assert residual(logsumexp(log_ratio + log_weights, axis=1), log_prob) < 1e-8
    elbo = at_nodes(model.elbo, x, nodes) @ np.exp(log_weights)
    assert residual(log_ratio @ np.exp(log_weights), elbo) < 1e-10


def test_bounds_draw_standard_normal_noise(curve):
    """With many draws of a Generator: within 5.5 standard errors, each fails once in 2e7 runs."""
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
    log_weight = at_nodes(model.iwae, x[:1], nodes)  # the mean of log w is the ELBO as well
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


def test_training_draws_fresh_noise_and_fresh_batches(monkeypatch):
    seen = []

    def spy(network, x, noise, kl_weight):
        seen.append((x.copy(), noise.copy()))
        return train_step(network, x, noise, kl_weight)

    monkeypatch.setattr("scratchgen.vae.training.train_step", spy)
    x = np.arange(20.0)[:, None] + np.zeros(2)
    model = VAE(3, hidden=(), n_steps=200, batch_size=32, rng=0).fit(x)
    assert {(a.shape, b.shape) for a, b in seen} == {((32, 2), (32, 3))}
    noise = np.concatenate([b for _, b in seen]).ravel()
    assert len(np.unique(noise)) > 0.99 * len(noise)
    assert stats.kstest(noise, "norm").pvalue > FALSE_ALARM
    rows = np.rint(model.to_data(np.concatenate([a for a, _ in seen])))[:, 0]
    assert stats.chisquare(np.unique_counts(rows).counts).pvalue > FALSE_ALARM
    assert len(np.unique(rows)) == 20


@pytest.mark.parametrize("standardize", [True, "global", False])
def test_given_decoder_variance_is_kept(standardize):
    x = with_covariance([4.0, 1.0])
    variances = {True: x.var(axis=0), "global": np.full(2, x.var(axis=0).mean()), False: np.ones(2)}[standardize]
    model = VAE(1, hidden=(3,), decoder_variance=0.3, n_steps=5, standardize=standardize, rng=0).fit(x)
    assert residual(model.decoder_variance_, 0.3 * variances) < 1e-6  # float32


def test_learned_decoder_variance_is_the_mean_squared_error_of_its_own_reconstructions(best, x):
    """For noisy codes, as in the loss: E‖x − x̂(z)‖²/D with z ~ q(z | x)."""
    mean, variance = best.encode(x)
    errors = [x - best.decode(mean + variance**0.5 * point) for point in sigma_points(2)]
    assert abs(best.decoder_variance_ - np.mean(np.square(errors))) < 1e-7


def test_binned_vae_bounds_the_mass_of_whole_numbers():
    """One latent: E_q log w <= log P(x) by a fine grid of z, and the masses of all x sum to one."""
    x = np.random.default_rng(0).integers(0, 3, (200, 2)).astype(float)
    x[:, 1] = x[:, 0]
    model = VAE(1, (8,), n_levels=3, n_steps=300, dtype="float64", rng=0).fit(x)
    every = np.array(np.meshgrid(*[np.arange(3.0)] * 2)).reshape(2, -1).T
    z, step = np.linspace(-9, 9, 2001, retstep=True)
    x_hat = model.network_.decoder(z[:, None])
    prior = step * stats.norm.pdf(z)
    log_p = [-reconstruction_error(row - 1, x_hat, model.network_.log_variance, 3)[0] for row in every]
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
    """decoder_variance="diag" on a linear VAE is factor analysis, and training reaches its maximum."""
    model = linear(n_latents=1, decoder_variance="diag", n_steps=2000, learning_rate=0.02).fit(x)
    best = FactorAnalysis(model.n_latents, tol=1e-7, max_iter=1000, rng=0).fit(x)
    assert model.decoder_variance_.shape == (x.shape[1],)
    assert model.elbo(x).mean() <= best.score(x) + 1e-4
    assert model.elbo(x).mean() == pytest.approx(best.score(x), abs=2e-3)


def test_diverged_training_is_an_error_that_names_step_cause_and_remedy():
    x = np.random.default_rng(0).standard_normal((50, 3))
    model = VAE(1, (8,), n_steps=200, standardize=False, rng=0)
    with pytest.raises(
        ArithmeticError, match=r"^training diverged in step 1: the loss is (nan|inf), before.*standardize x"
    ):
        model.fit(x * 1e8)
    model.set_params(learning_rate=1e3)
    with pytest.raises(ArithmeticError, match=r"^training diverged in step 3: .* after step 2; lower learning_rate"):
        model.fit(x)
    assert len(model.losses_) == 2
    assert np.isfinite(model.encoder_).all()


def test_a_variance_that_overflows_and_parameters_that_no_file_may_hold_are_errors(tmp_path):
    """A step of this size is finite in float64; a file holds numbers up to 1e130."""
    model = linear(n_latents=1, n_steps=1, learning_rate=1e140).fit(np.random.default_rng(0).standard_normal((50, 3)))
    with pytest.raises(ArithmeticError, match=r"^decoder_variance_ is not finite: .* lower learning_rate"):
        model.decoder_variance_  # noqa: B018
    with pytest.raises(ArithmeticError, match=r"^encoder_ must be finite, and at most 1e\+130 in size, .* fit"):
        model.save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


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
def test_invalid_parameters_are_refused_by_name(parameters, error, words, x):
    with pytest.raises(error, match=rf"^{words}"):
        VAE(1, **parameters).fit(x)


@pytest.mark.parametrize("standardize", [True, "global", False])
def test_decoder_variance_diag_refuses_a_constant_column(standardize, x):
    with pytest.raises(ValueError, match=r"column 4 is constant; with decoder_variance='diag' its s² .*; drop it$"):
        VAE(1, decoder_variance="diag", standardize=standardize).fit(np.column_stack([x, np.full(len(x), 7.0)]))


def test_a_code_that_overflows_the_decoder_is_an_error(x):
    model = VAE(1, hidden=(4,), n_steps=1, rng=0).fit(x)
    with pytest.raises(ArithmeticError, match="decode is not finite: numbers of the network overflow"):
        model.decode([[1e60]])


def test_a_fitted_model_keeps_its_network_when_parameters_change(x):
    model = linear(n_latents=2, n_steps=20).fit(x)
    before = model.sample(3, rng=0), model.elbo(x), model.decode(np.zeros((1, 2)))
    model.set_params(n_latents=3)
    for old, new in zip(before, (model.sample(3, rng=0), model.elbo(x), model.decode(np.zeros((1, 2)))), strict=True):
        assert np.array_equal(old, new)


def test_binned_vae_survives_save_and_load_and_refuses_values_that_are_not_levels(tmp_path):
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


@pytest.mark.parametrize("decoder_variance", [0.3, None, "diag"])
def test_two_levels_make_a_bernoulli_decoder(decoder_variance):
    """P(x_d = 1 | z) = Φ(m_d/s_d), for all 2³ rows; the ELBO at one draw of z is that of a Bernoulli law with this Φ.

    Measured: 1e-16 for the masses and 3e-16 for the ELBO.
    """
    rng = np.random.default_rng(0)
    bits = (rng.random((60, 3)) < [0.2, 0.5, 0.9]).astype(float)
    model = VAE(2, (8,), n_levels=2, decoder_variance=decoder_variance, n_steps=40, dtype="float64", rng=0).fit(bits)
    s = np.exp(0.5 * model.log_variance_)
    x_hat = model.network_.decoder(3 * rng.standard_normal((20, 2)))
    p = stats.norm.cdf(x_hat / s)
    corners = np.array(list(np.ndindex(2, 2, 2)), dtype=float)
    scaled = [np.broadcast_to(2 * x - 1, x_hat.shape) for x in corners]
    masses = np.array([np.exp(-reconstruction_error(x, x_hat, model.log_variance_, 2)[0]) for x in scaled])
    bernoulli = np.array([np.where(x == 1, p, 1 - p).prod(axis=1) for x in corners])
    assert residual(masses, bernoulli) < 1e-15
    assert residual(masses.sum(axis=0), np.ones(20)) < 2e-15
    xi = rng.standard_normal((1, 60, 2))
    mean, variance = model.encode(bits)
    u = model.network_.decoder(mean + np.sqrt(variance) * xi[0]) / s
    kl = 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(axis=1)
    expected = (bits * stats.norm.logcdf(u) + (1 - bits) * stats.norm.logcdf(-u)).sum(axis=1) - kl
    assert residual(model.elbo(bits, rng=Scripted(lambda i, shape: xi), n_draws=1), expected) < 4e-15


def test_draws_of_two_levels_have_the_masses_of_the_bernoulli_decoder():
    """Six standard errors, a false alarm of 1e-8; exchanged zeros and ones, the twin, must fail."""
    bits = (np.random.default_rng(0).random((60, 2)) < [0.8, 0.3]).astype(float)
    model = VAE(1, hidden=(8,), n_levels=2, n_steps=100, dtype="float64", rng=0).fit(bits)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    p = stats.norm.cdf(model.network_.decoder(nodes[:, None]) / np.exp(0.5 * model.log_variance_))
    corners = np.array(list(np.ndindex(2, 2)), dtype=float)
    masses = np.array([weights @ np.where(x == 1, p, 1 - p).prod(axis=1) for x in corners]) / weights.sum()
    drawn = model.sample(20_000, rng=2)
    shares = np.array([(drawn == x).all(axis=1).mean() for x in corners])
    for law, right in (masses, True), (masses[::-1], False):
        assert (np.abs(shares - law) < 6 * np.sqrt(law * (1 - law) / 20_000)).all() == right


def test_the_defaults_find_two_clusters():
    """A classifier tells samples from new rows in at most .65 of the cases, and nearly always after 20 steps."""
    centres, rng = np.array([[-2.0, -1.0, 0.5], [2.0, 1.0, -0.5]]), np.random.default_rng(0)
    x = centres[rng.integers(2, size=1000)] + 0.4 * rng.standard_normal((1000, 3))
    accuracy = [
        two_sample_accuracy(x[500:], VAE(rng=0, **given).fit(x[:500]).sample(500, rng=1), rng=0).accuracy
        for given in ({}, {"n_steps": 20})
    ]
    assert accuracy[0] <= 0.65
    assert accuracy[1] > 0.8
