"""PPCA and factor analysis as formulas: the closed maximum, the steps of EM, stationarity, monotonicity.

A monotone likelihood does not find a σ² from the old W, because this is still a generalised EM.
"""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import conformance as c
from scratchgen.em import factor_analysis_em_step, ppca_em_step, ppca_maximum
from scratchgen.testing import as_spd, cut, linear_gaussians, reals, size
from scratchgen.variational import linear_gaussian_elbo, linear_gaussian_log_prob, linear_gaussian_posterior
from tests.em_helpers import data_with_covariance, spectra, symmetric
from tests.strategies import holds, residual


@given(spectra())
def test_ppca_gap_is_zero_with_an_axis_aligned_encoder_too(spectrum):
    """The closed form's W has orthogonal columns, so that the diagonal encoder of a VAE can be exact."""
    S, _, k, _ = spectrum
    W, noise = ppca_maximum(symmetric(S), k)
    M = W.T @ W + noise * np.eye(k)
    assert residual(M, np.diag(np.diag(M))) < 1e-10


@pytest.mark.equation(15, 18, "em-for-ppca", "maximum-of-ppca")
@given(spectra())
def test_ppca_maximum_is_a_fixed_point_of_em(spectrum):
    S, _, k, _ = spectrum
    W, noise = ppca_maximum(symmetric(S), k)
    new_W, new_noise = ppca_em_step(symmetric(S), W, noise)
    assert residual(new_W, W) < 1e-9
    assert residual(new_noise, noise) < 1e-9


@st.composite
def ppca_steps(draw):
    """(S, W, σ²): S 4x4, k = 2, σ² in [0.1, 2]."""
    A, W = cut(draw(reals(size((4, 4), (4, 2)), -2, 2)), (4, 4), (4, 2))
    return A @ A.T + 0.1 * np.eye(4), W, draw(st.floats(0.1, 2))


@pytest.mark.equation(15, 18, "em-for-ppca")
@given(ppca_steps())
def test_ppca_em_step_is_the_e_and_m_step_over_the_data(step):
    """(15)-(18) as sums over data: W' = Σ(x−μ)E zᵀ (Σ E zzᵀ)⁻¹ and σ²' = E‖x − μ − W'z‖²/D."""
    S, W, noise = step
    x = data_with_covariance(S, np.zeros(4))
    M = W.T @ W + noise * np.eye(2)
    z = x @ W @ np.linalg.inv(M)
    zz = len(x) * noise * np.linalg.inv(M) + z.T @ z
    W_exact = x.T @ z @ np.linalg.inv(zz)
    noise_exact = ((x**2).sum() - 2 * np.sum((x @ W_exact) * z) + np.trace(zz @ W_exact.T @ W_exact)) / x.size
    W_new, noise_new = ppca_em_step(S, W, noise)
    assert residual(W_new, W_exact) < 1e-9
    assert residual(noise_new, noise_exact) < 1e-9


def test_ppca_em_started_orthogonal_to_the_best_direction_never_finds_it():
    """A saddle point; for this reason EM starts at random."""
    S = np.diag([5.0, 4.0, 0.5])
    W, noise = np.array([[0.0], [1.0], [0.0]]), 1.0
    for _ in range(200):
        W, noise = ppca_em_step(S, W, noise)
    found = W @ W.T + noise * np.eye(3)
    assert residual(found, np.diag([2.75, 4.0, 2.75])) < 1e-9  # the best direction counts as noise


@pytest.mark.parametrize("spectrum", [[0.1] * 4, [3.0] * 5, [2.0, 0.1, 0.1, 0.1]], ids=repr)
def test_ppca_of_a_flat_spectrum_is_finite(spectrum):
    """λ_k − σ² is 0 up to rounding; the square root must not get a negative number."""
    for k in range(1, len(spectrum)):
        W, noise = ppca_maximum(np.diag(spectrum), k)
        target = np.diag([*spectrum[:k], *[np.mean(spectrum[k:])] * (len(spectrum) - k)])
        assert residual(W @ W.T + noise * np.eye(len(W)), target) < 1e-7


# --- factor analysis --------------------------------------------------------------------------------------------


@pytest.mark.equation(8, 11)
@given(linear_gaussians(), reals(4, 0.1, 3))
def test_linear_gaussian_model_with_a_noise_for_every_dimension(m, noise):
    """(8), (11) for factor analysis: x divided by Ψ^½ follows a PPCA with σ² = 1, with a Jacobian."""
    noise = noise[: len(m.mean)]
    root = np.sqrt(noise)
    parameters = (m.W, m.mean, noise)
    white = (m.x / root, (m.W.T / root).T, m.mean / root, 1.0)
    mean, cov = linear_gaussian_posterior(m.x, *parameters)
    white_mean, white_cov = linear_gaussian_posterior(*white)
    assert residual(mean, white_mean) < 1e-10
    assert residual(cov, white_cov) < 1e-10
    jacobian = np.log(root).sum()
    assert residual(linear_gaussian_log_prob(m.x, *parameters), linear_gaussian_log_prob(*white) - jacobian) < 1e-10
    elbo = linear_gaussian_elbo(m.x, *parameters, m.q_mean, m.q_cov)
    assert residual(elbo, linear_gaussian_elbo(*white, m.q_mean, m.q_cov) - jacobian) < 1e-10
    assert c.check_linear_gaussian_posterior(linear_gaussian_posterior, *white)
    assert c.check_linear_gaussian_elbo(linear_gaussian_elbo, *white, m.q_mean, m.q_cov)


@given(reals(size((4, 4), (4, 2)), -1, 1), st.floats(0.1, 2))
def test_factor_analysis_takes_the_same_W_as_ppca_and_pools_to_its_noise(flat, variance):
    A, W = cut(flat, (4, 4), (4, 2))
    S = as_spd(A)
    fa_W, fa_noise = factor_analysis_em_step(S, W, np.full(4, variance))
    W, noise = ppca_em_step(S, W, variance)
    assert residual(fa_W, W) < 1e-9
    assert residual(fa_noise.mean(), np.float64(noise)) < 1e-9


# --- the checks that any implementation can be put to ------------------------------------------------------


@pytest.mark.equation(15)
@given(reals(size((4, 4), (4, 2)), -2, 2), st.floats(0.1, 2))
def test_em_step_of_ppca_is_stationary(flat, noise_variance):
    """The derivative of E_p E_q log p_θ(x, z) is 0 at the result of the step, with q fixed."""
    A, W = cut(flat, (4, 4), (4, 2))
    holds(c.check_ppca_step(ppca_em_step, as_spd(A), W, noise_variance))


@pytest.mark.equation(15, "factor-analysis")
@given(reals(size((4, 4), (4, 2)), -2, 2), reals(4, 0.1, 2))
def test_em_step_of_factor_analysis(flat, noise_variances):
    """The regression of x on z with the moments of the joint Gaussian."""
    A, W = cut(flat, (4, 4), (4, 2))
    holds(c.check_factor_analysis_step(factor_analysis_em_step, as_spd(A), W, noise_variances))


@pytest.mark.equation("maximum-of-ppca")
@given(spectra())
def test_maximum_of_ppca_is_the_closed_form(spectrum):
    """Value and point."""
    S, _, k, _ = spectrum
    holds(c.check_ppca_maximum(ppca_maximum, symmetric(S), k))


@pytest.mark.parametrize("noise", [np.array([1, 2, 3]), np.float32([0.1, 0.2, 0.3])], ids=["int64", "float32"])
def test_noise_of_another_dtype_is_computed_in_double(noise):
    x, W = np.array([[0.3, -1.2, 0.7]]), np.array([[1.0], [0.5], [-2.0]])
    for f in linear_gaussian_log_prob, linear_gaussian_posterior:
        for found, expected in zip(f(x, W, np.zeros(3), noise), f(x, W, np.zeros(3), noise.astype(float)), strict=True):
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("n_components", [0, 3, 4])
def test_ppca_leaves_a_direction_for_a_noise_that_is_estimated(n_components):
    with pytest.raises(ValueError, match=rf"^n_components must be in 1\.\.2 to leave .*, got {n_components}$"):
        ppca_maximum(np.diag([3.0, 2.0, 1.0]), n_components)


def test_ppca_of_a_given_noise_takes_all_directions():
    W, noise_variance = ppca_maximum(np.diag([3.0, 2.0, 1.0]), 3, 0.5)
    assert residual(W @ W.T, np.diag([2.5, 1.5, 0.5])) < 1e-15
    assert noise_variance == 0.5


# --- small noise, against 60 digits ---------------------------------------------------------------------------------

RNG = np.random.default_rng(5)
LOADINGS = {
    "4 x 3": RNG.standard_normal((4, 3)),
    "dependent columns": RNG.standard_normal((4, 1)) * [1.0, -2.0, 0.5],
    "3 x 5": RNG.standard_normal((3, 5)),
    "a latent that is not used": RNG.standard_normal((5, 2)) * [1.0, 0.0],
}
PROFILES = {"ppca": None, "fa": np.array([1.0, 1e-3, 30.0, 1e-5, 0.1])}


def exactly(array):
    """The binary numbers of an array as an mpmath matrix; vectors become columns."""
    return mpmath.matrix(np.asarray(array, dtype=float).tolist())


def rounded(matrix):
    return np.array(matrix.tolist(), dtype=float)


def exact_model(W, psi):
    """C = W Wᵀ + Ψ, and the precision M = I + WᵀΨ⁻¹W of the posterior, with WᵀΨ⁻¹."""
    W, noise = exactly(W), [mpmath.mpf(float(v)) for v in psi]
    weighted = W.T * mpmath.diag([1 / v for v in noise])
    return W * W.T + mpmath.diag(noise), mpmath.eye(W.cols) + weighted * W, weighted


@pytest.fixture(params=[1e-2, 1e-8, 1e-10, 1e-14], ids="noise {:g}".format)
def size_of_noise(request):
    with mpmath.workdps(60):
        yield request.param


@pytest.fixture(params=PROFILES)
def noisy(request, size_of_noise):
    """The noise variances of D columns, as an argument and as (D,)."""
    profile = PROFILES[request.param]

    def of(D):
        noise = size_of_noise if profile is None else size_of_noise * profile[:D]
        return noise, np.broadcast_to(noise, D)

    return of


@pytest.mark.equation(8, 11)
@pytest.mark.parametrize("W", LOADINGS.values(), ids=LOADINGS)
def test_small_noise_keeps_the_digits_of_the_density_and_the_posterior(W, noisy):
    """log p(x) from a factor of W Wᵀ + σ² I is off by 77 nats at σ² = 1e-10; x is drawn from the model."""
    D, k = W.shape
    noise, psi = noisy(D)
    mean, rng = np.arange(D) / 4, np.random.default_rng(0)
    x = rng.standard_normal((4, k)) @ W.T + mean + np.sqrt(psi) * rng.standard_normal((4, D))
    C, M, weighted = exact_model(W, psi)
    rows = [exactly(row) - exactly(mean) for row in x]
    log_det = mpmath.log(mpmath.det(2 * mpmath.pi * C))
    exact = np.array([float(-(log_det + (r.T * mpmath.lu_solve(C, r))[0]) / 2) for r in rows])
    # The rounding of x itself, 1e-16, is divided by the noise's standard deviation.
    scale = 1e-14 / np.sqrt(psi.min())
    assert residual(linear_gaussian_log_prob(x, W, mean, noise), exact) < 1e-11 + scale
    means, covariance = linear_gaussian_posterior(x, W, mean, noise)
    exact_means = np.array([rounded(mpmath.lu_solve(M, weighted * r))[:, 0] for r in rows])
    assert residual(means, exact_means) < 1e-11 + scale
    inverse = rounded(M**-1)
    assert np.abs(covariance - inverse).max() < (1e-13 + scale) * np.abs(inverse).max()


@pytest.mark.equation(7, 8)
@pytest.mark.parametrize("W", LOADINGS.values(), ids=LOADINGS)
def test_small_noise_keeps_the_digits_of_the_elbo(W, noisy):
    """(7) at a given q, with a posterior's width in the directions that x determines."""
    D, k = W.shape
    noise, psi = noisy(D)
    _, M, _ = exact_model(W, psi)
    _, covariance = linear_gaussian_posterior(np.zeros((1, D)), W, np.zeros(D), noise)
    q_cov, q_mean = 0.5 * (covariance + covariance.T) + np.eye(k) * max(psi.min(), 1e-12), RNG.standard_normal((2, k))
    x = q_mean @ W.T + np.sqrt(psi) * np.random.default_rng(1).standard_normal((2, D))
    V, exact = exactly(q_cov), []
    for row, m in zip(x, q_mean, strict=True):
        r, m = exactly(row) - exactly(W) * exactly(m), exactly(m)
        fit = sum(mpmath.log(2 * mpmath.pi * float(v)) + r[d] ** 2 / float(v) for d, v in enumerate(psi))
        spread = sum(((M - mpmath.eye(k)) * V)[i, i] for i in range(k))
        kl = (m.T * m)[0] + sum(V[i, i] for i in range(k)) - k - mpmath.log(mpmath.det(V))
        exact.append(float(-(fit + spread + kl) / 2))
    scale = 1e-14 / np.sqrt(psi.min()) + 1e-15 * np.linalg.cond(q_cov)  # of the rounding of x and of q_cov
    assert residual(linear_gaussian_elbo(x, W, np.zeros(D), noise, q_mean, q_cov), np.array(exact)) < 1e-11 + scale


def exact_step(S, W, psi):
    """W' and Ψ' of one step of EM, in 60 digits."""
    _, M, weighted = exact_model(W, psi)
    S, V = exactly(S), M**-1
    beta = V * weighted
    new_W = S * beta.T * (V + beta * S * beta.T) ** -1
    return rounded(new_W), np.diag(rounded(S - new_W * beta * S))


@pytest.mark.equation(15, 18)
def test_small_noise_keeps_the_digits_of_a_step_of_em(noisy):
    """Near the maximum, where Ψ' = diag(S − W'βS) is a small difference; S itself is rounded to 1e-16 of its trace."""
    errors = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        W = rng.standard_normal((5, 2))
        noise, psi = noisy(5)
        S = W @ W.T + np.diag(psi)
        W = W + 0.1 * np.sqrt(psi)[:, None] * rng.standard_normal(W.shape)
        exact_W, exact_psi = exact_step(S, W, psi)
        new_W, new_psi = factor_analysis_em_step(S, W, psi)
        assert residual(new_W, exact_W) < 1e-12
        errors.append(np.abs(new_psi - exact_psi).max() / np.trace(S))
        if np.ndim(noise) == 0:
            new_W, new_noise = ppca_em_step(S, W, noise)
            assert residual(new_W, exact_W) < 1e-12
            assert abs(new_noise - exact_psi.mean()) < 4e-16 * np.trace(S)
    assert max(errors) < 5e-15  # 1e-13 for the difference


@pytest.mark.parametrize("noise", [0.0, -1.0, np.nan, np.array([1.0, 0.0, 1.0])], ids=str)
def test_noise_that_is_not_positive_is_refused(noise):
    for function in linear_gaussian_log_prob, linear_gaussian_posterior:
        with pytest.raises(ValueError, match=r"^noise_variance must be positive and finite, got .*; raise the noise"):
            function(np.zeros((2, 3)), np.ones((3, 1)), np.zeros(3), noise)
