"""Bits per dimension: the sums by hand, the same scale for all families, and a bound with labels summed out."""

from itertools import product

import numpy as np
import pytest

from scratchgen import DDPM, CategoricalMixture, GaussianMixture, NoiseSchedule
from scratchgen.grading import ancestral_density
from scratchgen.likelihood import logsumexp, quiet_log
from scratchgen.metrics import cross_fitted_bound, label_summed_bits, model_bits
from tests.reliability.models import LEVELS, REALS, fitted

LN2 = np.log(2)


def test_an_exact_model_has_no_noise_of_evaluation():
    model = fitted("CategoricalMixture")
    bits = model_bits(model, LEVELS, rng=0)
    rows = -model.log_prob(LEVELS) / (3 * LN2)
    np.testing.assert_allclose(bits.rows, rows, rtol=1e-12)
    assert bits.mean == pytest.approx(rows.mean(), rel=1e-12)
    assert bits.row_error == pytest.approx(rows.std(ddof=1) / 40**0.5, rel=1e-12)
    assert bits.noise_error == 0


@pytest.mark.parametrize(
    ("kind", "bound", "options"),
    [
        ("ScoreSDE of levels", "elbo", {"n_times": 4}),
        ("DDPM of levels", "elbo", {}),
        ("VAE of levels", "iwae", {"n_draws": 8}),
    ],
)
def test_a_bound_is_repeated_with_seeds_that_depend_on_rng_only(kind, bound, options):
    model = fitted(kind)
    bits = model_bits(model, LEVELS, n_repeats=3, rng=5, bound=bound, **options)
    seeds = np.random.default_rng(5).integers(2**63, size=3).tolist()
    runs = np.array([getattr(model, bound)(LEVELS, np.random.default_rng(seed), **options) for seed in seeds])
    runs = -runs / (3 * LN2)
    assert bits.mean == pytest.approx(runs.mean(), rel=1e-12)
    assert bits.noise_error == pytest.approx(runs.mean(axis=1).std(ddof=1) / 3**0.5, rel=1e-12)
    assert bits.row_error == pytest.approx(runs.mean(axis=0).std(ddof=1) / 40**0.5, rel=1e-12)


def test_a_density_that_is_constant_on_the_cells_has_the_bits_of_its_levels():
    """A wide Gaussian is all but constant on a cell, whose volume is 1: P = p."""
    x = np.rint(100 * np.random.default_rng(0).standard_normal((200, 2)))
    model = GaussianMixture(rng=0).fit(x + 0.5)
    bits = model_bits(model, x, n_repeats=8, rng=0)
    assert bits.mean == pytest.approx(-model.log_prob(x + 0.5).mean() / (2 * LN2), abs=1e-3)
    assert 0 < bits.noise_error < 1e-3


def test_labels_are_those_of_the_bound_given_the_label():
    model, y = labelled()
    bits = model_bits(model, LEVELS, y, n_repeats=2, rng=1)
    seeds = np.random.default_rng(1).integers(2**63, size=2).tolist()
    runs = [model.elbo(LEVELS, np.random.default_rng(seed), y) for seed in seeds]
    assert bits.mean == pytest.approx(-np.mean(runs) / (3 * LN2), rel=1e-12)


def test_refusals():
    model = fitted("CategoricalMixture")
    with pytest.raises(ValueError, match="x must hold whole numbers, got fractions"):
        model_bits(fitted("PPCA"), REALS)
    with pytest.raises(ValueError, match="labels must be None for a model without labels"):
        model_bits(model, LEVELS, np.zeros(40, dtype=int))
    with pytest.raises(ValueError, match="bound must be 'elbo' for a ScoreSDE"):
        model_bits(fitted("ScoreSDE of levels"), LEVELS, bound="iwae")
    sharp = CategoricalMixture(1, n_levels=4, smoothing=0.0, rng=0).fit(np.minimum(LEVELS, 2))
    with pytest.raises(ArithmeticError, match=r"the mean is not finite: \d+ of 40 rows have probability 0"):
        model_bits(sharp, LEVELS)
    with pytest.raises(ValueError, match="model must have n_classes and n_levels, got n_classes=0"):
        label_summed_bits(fitted("DDPM of levels"), LEVELS)
    for prior in [0.5, 0.5], [1.0, 0.0, 0.0]:
        with pytest.raises(ValueError, match="prior must hold a positive probability for each of the K = 3"):
            cross_fitted_bound(np.zeros((2, 4, 3)), prior)
    with pytest.raises(ValueError, match=r"elbos must have shape \(R, N, K\) with R >= 2"):
        cross_fitted_bound(np.zeros((1, 4, 3)), np.full(3, 1 / 3))


# --- labels summed out ------------------------------------------------------------------------------------------------

LOG_P = np.log([[0.3, 0.02], [1e-4, 0.5]])  # log p(x|y) of two rows and two labels
PRIOR = np.array([0.4, 0.6])
EXACT = np.log(np.exp(LOG_P) @ PRIOR)


def over_all_noise(f, size):
    """Mean of f over noise of ELBOs, (R, N, K) = (2, 2, 2), with every element ± size; two rows share their noise."""
    signs = np.array(list(product([-1.0, 1.0], repeat=4))).reshape(-1, 2, 1, 2)
    return np.mean([f(LOG_P + size * np.broadcast_to(sign, (2, 2, 2))) for sign in signs], axis=0)


def test_without_noise_it_is_the_exact_log_probability():
    bound = cross_fitted_bound(np.stack([LOG_P] * 3), PRIOR)
    np.testing.assert_allclose(bound, np.stack([EXACT] * 3), rtol=1e-12)


@pytest.mark.parametrize("size", [0.1, 1.0, 3.0])
def test_with_noise_its_mean_stays_below_while_the_plug_in_value_lies_above(size):
    """The mean is over all values of the noise, so that no draw decides."""
    valid = over_all_noise(lambda elbos: cross_fitted_bound(elbos, PRIOR).mean(axis=0), size)
    plug_in = over_all_noise(lambda elbos: logsumexp(np.log(PRIOR) + elbos.mean(axis=0)), size)
    assert (valid < EXACT).all()
    assert (plug_in > EXACT).all()


def test_weights_from_the_same_draws_would_not_be_valid():
    """The twin: q_r from all repetitions, of which r is one."""

    def same(elbos):
        joint = np.log(PRIOR) + elbos
        log_q = joint.mean(axis=0) - logsumexp(joint.mean(axis=0))[:, None]
        return (np.exp(log_q) * (joint - log_q)).sum(axis=-1).mean(axis=0)

    assert (over_all_noise(same, 1.0) > EXACT).all()


@pytest.fixture(scope="module")
def line_model():
    """A short DDPM of one column with two labels, and the labels of its rows."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    x = (2.0 * y - 1 + 0.4 * rng.standard_normal(200))[:, None]
    chain = NoiseSchedule.cosine(6)
    return DDPM(chain, n_classes=2, hidden=(16,), n_steps=200, rng=0).fit(x, y), x


def test_the_bound_of_a_ddpm_is_below_its_exact_density(line_model):
    """log p_θ(x) with the label summed out, from the exact density of the sampler, given each label."""
    model, x = line_model
    exact = []
    for label in range(2):
        eps_hat = lambda x_t, t, label=label: model.eps_hat(x_t, t, np.full(len(x_t), label))  # noqa: E731
        density = ancestral_density(model.schedule_, eps_hat, 1, model.variance_)
        log_density = np.interp(model.to_model(x)[:, 0], density.points[:, 0], quiet_log(density.density))
        exact.append(log_density - model._log_volume)
    exact = logsumexp(np.stack(exact, axis=1) + np.log(0.5))
    runs = [
        np.stack([model.elbo(x, np.random.default_rng(seed), np.full(200, label)) for label in range(2)], axis=1)
        for seed in range(100)
    ]
    bounds = cross_fitted_bound(np.array(runs), [0.5, 0.5]).mean(axis=1)
    mean, error = bounds.mean(), bounds.std(ddof=1) / 10
    assert mean + 5.4 * error < exact.mean()
    assert mean > exact.mean() - 0.3


def labelled():
    """A DDPM of levels with two labels."""
    y = np.arange(40) % 2
    model = DDPM(
        NoiseSchedule.cosine(8),
        prediction="levels",
        n_levels=4,
        n_classes=2,
        hidden=(6,),
        n_steps=5,
        batch_size=8,
        rng=0,
    )
    return model.fit(LEVELS, y), y


def test_label_summed_bits_are_those_of_the_bound():
    model, _ = labelled()
    bits = label_summed_bits(model, LEVELS, n_repeats=3, rng=2)
    seeds = np.random.default_rng(2).integers(2**63, size=3).tolist()
    elbos = np.array(
        [[model.elbo(LEVELS, np.random.default_rng(seed), np.full(40, y)) for y in range(2)] for seed in seeds]
    )
    bounds = cross_fitted_bound(elbos.transpose(0, 2, 1), [0.5, 0.5])
    assert bits.mean == pytest.approx(-bounds.mean() / (3 * LN2), rel=1e-12)
    other = label_summed_bits(model, LEVELS, [0.9, 0.1], n_repeats=3, rng=2)
    assert other.mean != bits.mean
