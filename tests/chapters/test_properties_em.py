"""Properties (15)-(18): the two steps of EM on random problems, through the checks of `scratchgen.conformance`.

A likelihood that never falls does not exclude mixing weights that never change; a step must also be the maximiser.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import Mixture
from scratchgen import conformance as c
from scratchgen.em import e_step, free_energy, m_step, m_step_table, ppca_em_step, ppca_maximum
from scratchgen.likelihood import softmax
from scratchgen.testing import as_spd, cut, em_problems, reals, size, tables
from tests.em_helpers import spectra, symmetric
from tests.strategies import holds


@pytest.mark.equation(15)
@given(tables())
def test_free_m_step_of_tables(table):
    """After the step the joint KL is KL(q(z)‖prior), with the aggregate posterior q(z)."""
    holds(c.check_free_m_step(m_step_table, table.p, table.q, table.prior))


def em(x, weights, means, covariances):
    mixture = m_step(x, e_step(x, Mixture(weights, means, covariances))[0], Mixture(weights, means, covariances), 1e-3)
    return mixture.weights, mixture.means, mixture.covariances


@pytest.mark.equation(15, 17, 18)
@given(em_problems())
def test_em_on_easy_and_hard_data(problem):
    """A step is the constrained maximiser, six steps never lower the likelihood, and nothing overflows."""
    x, m = problem
    holds(c.check_em(em, x, m.weights, m.means, m.covariances, floor=1e-3, n_iterations=6))


@pytest.mark.equation(16, 17, 18)
@given(em_problems(modes=("plain", "offset 2^10", "duplicates", "collinear")))
def test_e_step_and_free_energy(problem):
    """Bayes' rule; and the free energy, which is log p_θ(x) at the posterior."""
    x, m = problem
    parameters = m.weights, m.means, m.covariances
    holds(c.check_e_step(lambda x, *p: np.exp(e_step(x, Mixture(*p))[0]), x, *parameters))
    log_resp = np.log(softmax(np.sin(np.arange(x.shape[0] * len(m.weights)).reshape(len(x), -1))))
    holds(c.check_free_energy(lambda x, r, *p: free_energy(x, r, Mixture(*p)), x, log_resp, *parameters))


@pytest.mark.equation(15)
@given(reals(size((4, 4), (4, 2)), -2, 2), st.floats(0.1, 2))
def test_em_step_of_ppca(flat, noise_variance):
    """The derivative of E_p E_q log p_θ(x, z) is 0 at the result of the step, with q fixed."""
    A, W = cut(flat, (4, 4), (4, 2))
    holds(c.check_ppca_step(ppca_em_step, as_spd(A), W, noise_variance))


@given(spectra())
def test_maximum_of_ppca(spectrum):
    """Value and point."""
    S, _, k, _ = spectrum
    holds(c.check_ppca_maximum(ppca_maximum, symmetric(S), k))
