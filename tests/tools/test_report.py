"""Parts of the report with exact answers: the decoder in the figure of the drawback."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from scratchgen import Mixture, datasets
from scratchgen.grading import nearest_gaussian
from scratchgen.likelihood import entropy_gaussian
from scratchgen.report.tour import Tour
from scratchgen.report.transport import transport_decoder
from scratchgen.testing import mixtures
from tests.strategies import residual


def test_a_quick_tour_trains_for_a_fifth_of_the_steps():
    assert Tour(0, False).steps(1003) == 1003
    assert Tour(0, True).steps(1003) == 200


@given(mixtures(max_dimension=1), st.floats(0.3, 2))
def test_transport_decoder_has_the_marginal_of_p_with_noise(truth, s):
    """∫ N(x; f(z), s²) N(z) dz = p ∗ N(0, s²), by the trapezoid rule over z; as s → 0 the marginal tends to p."""
    truth = Mixture(
        truth.weights, truth.means / 3, truth.covariances
    )  # smaller means: across a deep valley f would jump
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
    """KL(p‖p_θ) falls with s for every s; the least gap of a Gaussian posterior falls in the end."""
    truth = datasets.gaussians_1d()
    f = transport_decoder(truth)
    model_gaps = [truth.kl(truth.diffuse(1.0, s).log_prob) for s in (0.2, 0.1, 0.05, 0.02)]
    assert (np.diff(model_gaps) < 0).all()
    assert model_gaps[-1] < 3e-5
    assert entropy_gaussian(truth.covariance()) - truth.entropy() > 0.4  # the KL of the best Gaussian marginal
    z, point = np.linspace(-9, 9, 80001), -0.3
    gaps = [nearest_gaussian(z, -0.5 * ((point - f(z)) / s) ** 2 - 0.5 * z**2)[2] for s in (0.2, 0.1, 0.05, 0.02)]
    assert gaps[0] > 0.2
    assert gaps[-1] < 0.1


def test_transport_decoder_is_for_the_line():
    with pytest.raises(ValueError, match=r"^truth must be a Mixture on the line, got 2 dimensions"):
        transport_decoder(datasets.gaussians_2d())
