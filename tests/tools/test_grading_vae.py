"""Grades of VAEs: linear ones against PPCA, one latent against other grids, the nearest Gaussian against many."""

import copy
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import logsumexp

from scratchgen import PPCA, VAE
from scratchgen.em import ppca_maximum
from scratchgen.grading import OneLatent, gaussian_gap, grade_linear_vae, grade_vae, nearest_gaussian
from scratchgen.variational import linear_gaussian_elbo, linear_gaussian_log_prob, linear_gaussian_mean_field
from tests.strategies import residual
from tests.vaes import ARCS, arc, linear, linear_parameters, log_joint, with_covariance

LEFT_OVER = 0.5  # mean of the two eigenvalues that two latents do not explain


@pytest.fixture(scope="module")
def x():
    return with_covariance([5.0, 2.0, 0.8, 0.2])


@pytest.fixture(scope="module")
def best(x):
    """A linear VAE after complete training."""
    return linear(n_latents=2).fit(x)


@pytest.fixture(scope="module", params=ARCS.values(), ids=ARCS.keys())
def curve(request):
    return arc(**request.param)


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


def test_grade_of_a_linear_vae_away_from_its_optimum_has_the_exact_gap_and_angle(best, x):
    """A rotated W has the same likelihood and at least the gap ½(Σ log M_ii − log|M|); a tilted W has an angle."""
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


def test_grade_of_a_linear_vae_without_active_latents_has_no_angle():
    x = with_covariance([3.0, 1.0, 0.5, 0.1])
    grade = grade_linear_vae(linear(n_latents=2, decoder_variance=10.0, n_steps=500).fit(x), x)
    assert (grade.n_active, grade.best_n_active) == (0, 0)
    assert np.isnan(grade.angle)
    assert abs(grade.elbo - grade.maximum) < 1e-4


def test_active_directions_of_model_and_optimum_are_counted_by_one_rule():
    """λ = 1.001 with s² = 1 is not active, nor is a tie; the angle to directions that are not unique is NaN."""
    for eigenvalues, n in ([1.001, 0.5, 0.2], 0), ([3.0, 1.0, 1.0], 1), ([2.0, 2.0, 1.0], 2):
        x = with_covariance(eigenvalues)
        model = linear(n_latents=2, decoder_variance=1.0, standardize=False, n_steps=1).fit(x)
        model.network_.decoder.weights[0][:] = ppca_maximum(np.cov(x.T, bias=True), 2, 1.0)[0].T  # the optimum
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
    with pytest.raises(ValueError, match=r"^x lies in a space of at most 1 dimension,"):
        grade_linear_vae(linear(n_latents=1, n_steps=1).fit(flat), flat)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"decoder_variance": "diag"}, 'model must have one decoder variance, got "diag"'), ({"n_latents": 4}, "fewer")],
    ids=["diag", "k = D"],
)
def test_grade_of_a_linear_vae_refuses_what_has_no_closed_form(parameters, words, x):
    with pytest.raises(ValueError, match=words):
        grade_linear_vae(linear(n_steps=1, **parameters).fit(x), x)


def test_grade_is_the_evidence_and_the_kl_to_the_posterior(curve):
    """Both numbers against another grid, from `decode` and `encode` alone."""
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


def test_grade_of_an_x_far_from_all_samples_is_exact_or_an_error(x):
    """The posterior of such an x is beyond z = 9; the nodes move there, or the function raises."""
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


def test_grade_resolves_the_decoder_on_the_scale_of_the_encoder():
    """f(z) = sin wz with a period as long as two of 801 nodes over q(z | x): these gave gaps that are wrong by 0.2."""
    x = np.random.default_rng(0).standard_normal((50, 1))
    model = VAE(1, (4,), decoder_variance=1.0, standardize=False, n_steps=1, dtype="float64", rng=0).fit(x)
    x = x[:3]
    for n, (mean, std) in enumerate(zip(model.encode(x)[0][:, 0], model.encode(x)[1][:, 0] ** 0.5, strict=True)):
        w = np.pi / (18 / 800 * std)
        model.network_.decoder = lambda z, w=w: np.sin(w * z)
        grade = grade_vae(model, x[n : n + 1])
        # under N(0, 1) and under q the phase wz is uniform, to 1e-300
        phase = 2 * np.pi * np.arange(200) / 200
        log_prob = logsumexp(stats.norm.logpdf(x[n], np.sin(phase), 1)) - np.log(200)
        fit = -0.5 * (np.log(2 * np.pi) + x[n, 0] ** 2 + 0.5)
        gap = log_prob - fit + 0.5 * (mean**2 + std**2 - 1) - np.log(std)
        assert grade.log_prob[0] == pytest.approx(log_prob, abs=1e-10)
        assert grade.gap[0] == pytest.approx(gap, abs=1e-6)


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


@given(st.floats(-3, 3), st.floats(0.05, 2))
def test_nearest_gaussian_of_a_gaussian_is_itself(mean, std):
    z = np.linspace(-25, 25, 4001)
    found_mean, found_std, kl = nearest_gaussian(z, stats.norm.logpdf(z, mean, std) + 7.0)
    assert abs(found_mean - mean) < 1e-6
    assert abs(found_std - std) < 1e-6
    assert abs(kl) < 1e-10


@pytest.mark.parametrize("weight", [0.3, 0.6])
def test_nearest_gaussian_takes_the_heavier_of_two_far_modes(weight):
    """KL(q‖p) is then −log of the weight of the mode; a descent from the moments of p would end between the modes."""
    z = np.linspace(-20, 20, 4001)
    parts = np.log(weight) + stats.norm.logpdf(z, -8, 1), np.log(1 - weight) + stats.norm.logpdf(z, 7, 0.5)
    mean, std, kl = nearest_gaussian(z, np.logaddexp(*parts))
    assert (mean, std) == pytest.approx((-8, 1) if weight > 0.5 else (7, 0.5), abs=1e-5)
    assert kl == pytest.approx(-np.log(max(weight, 1 - weight)), abs=1e-8)


@pytest.mark.parametrize("steepness", [10.0, 100.0, 1e3])
def test_nearest_gaussian_pays_for_mass_beyond_an_edge(steepness):
    """A flat top with edges −steepness (|z| − 3): no Gaussian of a fine grid is nearer, and the KL counts all mass."""
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
    assert grade_vae(model, x[:5]).gap.min() > 1e-3  # the encoder is not trained to the end
    with pytest.raises(ValueError, match=r"^model must have one latent for an exact integral, got 2"):
        gaussian_gap(linear(n_latents=2, n_steps=1).fit(x), x)


def test_nodes_become_as_fine_as_the_decoder_needs():
    """f(z) = 200 z moves by 0.9 s between 4001 nodes; p_θ is N(0, 200² + s²)."""
    steep = OneLatent(lambda z: 200 * z, 0.0)
    x = np.array([[-150.0], [0.3], [400.0]])
    joints = list(steep.log_joints(x))
    log_prob = [logsumexp(joint) + np.log(z[1] - z[0]) for z, joint in joints]
    assert residual(np.array(log_prob), stats.norm.logpdf(x[:, 0], 0, (200**2 + 1) ** 0.5)) < 1e-11
    assert len(joints[0][0]) > 4001
    assert len(next(OneLatent(lambda z: z, 0.0).log_joints(x[1:2]))[0]) == 4001
    with pytest.raises(ArithmeticError, match=r"^the decoder moves by .* pass n_nodes="):
        list(OneLatent(lambda z: 1e6 * np.sign(z), 0.0).log_joints(x))
