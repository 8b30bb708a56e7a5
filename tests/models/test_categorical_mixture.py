"""CategoricalMixture and its distribution: masses, EM, the exact denoiser of diffused levels, files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scratchgen import CategoricalMixture, Mixture, datasets
from scratchgen.em import CategoricalLaw, categorical_m_step, e_step, free_energy, indicators
from scratchgen.likelihood import softmax
from tests.strategies import residual


@st.composite
def categorical_problems(draw):
    N, D, L, K = draw(st.integers(1, 12)), draw(st.integers(1, 3)), draw(st.integers(2, 4)), draw(st.integers(1, 3))
    x = draw(st.lists(st.lists(st.integers(0, L - 1), min_size=D, max_size=D), min_size=max(N, K), max_size=max(N, K)))
    return np.array(x, dtype=float), L, K


@pytest.mark.equation(15, 18, "em-for-tables")
@given(categorical_problems(), st.sampled_from([0.0, 0.1, 1.0]))
def test_em_of_tables_is_monotone_and_ends_stationary(problem, smoothing):
    x, L, K = problem
    model = CategoricalMixture(K, n_levels=L, smoothing=smoothing, tol=0, max_iter=20, rng=0).fit(x)
    bounds = model.lower_bounds_
    assert np.all(np.diff(bounds) >= -1e-9 * (1 + np.abs(bounds[1:])))
    assert residual(model.probabilities_.sum(axis=2), np.ones((K, x.shape[1]))) < 1e-12
    assert np.isfinite(model.log_prob(x)).all()
    resp = model.predict_proba(x)
    assert residual(resp.sum(axis=1), np.ones(len(x))) < 1e-12


@given(categorical_problems())
def test_one_table_has_the_smoothed_frequencies(problem):
    x, L, _ = problem
    model = CategoricalMixture(1, n_levels=L, smoothing=0.5).fit(x)
    counts = np.stack([np.bincount(column.astype(int), minlength=L) for column in x.T])
    exact = (counts + 0.5 * (counts + 1 / L) / (len(x) + 1)) / (len(x) + 0.5)
    assert residual(model.probabilities_[0], exact) < 1e-14
    log_prob = [sum(np.log(exact[d, int(row[d])]) for d in range(x.shape[1])) for row in x]
    assert residual(model.log_prob(x), np.array(log_prob)) < 1e-12


def small_tables(rng=0):
    x = np.random.default_rng(rng).integers(0, 3, (40, 2)).astype(float)
    x[:20] = np.minimum(x[:20], 1)
    return CategoricalMixture(2, n_levels=3, rng=0).fit(x), x


def test_masses_sum_to_one_and_elbo_is_log_prob():
    model, x = small_tables()
    every = np.array(np.meshgrid(*[np.arange(3.0)] * 2)).reshape(2, -1).T
    assert np.exp(model.log_prob(every)).sum() == pytest.approx(1, rel=1e-13)
    assert residual(model.elbo(x), model.log_prob(x)) < 1e-12
    assert np.array_equal(model.predict(x), model.predict_proba(x).argmax(axis=1))


def test_a_level_never_seen_is_impossible_without_smoothing():
    model = CategoricalMixture(1, n_levels=3, smoothing=0.0).fit([[0.0], [1.0]])
    assert model.log_prob([[2.0]])[0] == -np.inf
    assert model.log_prob([[0.0]])[0] == pytest.approx(np.log(0.5))
    model = CategoricalMixture(2, n_levels=5, smoothing=0, max_iter=3, rng=0).fit([[0, 0], [0, 1], [1, 1]])
    assert model.elbo([[4, 4]])[0] == model.log_prob([[4, 4]])[0] == -np.inf
    assert residual(model.predict_proba([[4, 4]])[0], model.weights_) < 1e-12


def test_diffused_density_and_denoiser_are_those_of_the_atoms():
    """Against the mixture of 9 Gaussians around the 9 images, with their exact masses as weights."""
    model, _ = small_tables()
    every = np.array(np.meshgrid(*[np.arange(3.0)] * 2)).reshape(2, -1).T
    atoms, masses = every - 1, np.exp(model.log_prob(every))
    for scale, std in (0.9, 0.2), (0.3, 0.95):
        law = Mixture(masses, scale * atoms, np.tile(std**2 * np.eye(2), (9, 1, 1)))
        x_t = np.random.default_rng(0).normal(size=(20, 2))
        assert residual(model.diffused_log_prob(x_t, scale, std), law.log_prob(x_t)) < 1e-12
        tweedie = (x_t + std**2 * law.score(x_t)) / scale
        assert residual(model.denoise(x_t, scale, std), tweedie) < 1e-10
        trace = np.trace(law.score_jacobian(x_t), axis1=1, axis2=2)
        missed = (std / scale) ** 2 * (2 + std**2 * trace)
        assert residual(model.denoise_variance(x_t, scale, std), missed) < 1e-10
    assert residual(model.denoise(atoms, 1.0, 1e-3), atoms) < 1e-12


@pytest.mark.parametrize("std", [1e-6, 1e-8, 1e-10])
def test_denoised_levels_stay_within_the_levels_at_tiny_noise(std):
    """Logarithms of 1e16, where exp of their differences is no longer a probability."""
    model, _ = small_tables()
    x_t = np.random.default_rng(0).normal(size=(500, 2))
    assert np.abs(model.denoise(x_t, 1.0, std)).max() <= 1 + 1e-15


@pytest.mark.parametrize("far", [1e9, 1e20, 1e60])
@pytest.mark.parametrize(("scale", "std"), [(0.6, 0.8), (-0.6, 0.8), (1.0, 1e-3)])
def test_far_away_the_denoiser_is_the_outermost_level_that_is_possible(far, scale, std):
    """E[x_0 | x_t] goes to the end of the support of the mixture, and its variance to 0."""
    tables = [[[0.5, 0.3, 0.2], [0.5, 0.5, 0.0]], [[0.1, 0.9, 0.0], [0.2, 0.8, 0.0]]]
    law, sign = CategoricalLaw([0.5, 0.5], tables), np.sign(scale)
    x_t = np.array([[far, far], [-far, -far]])
    ends = np.array([[1.0, 0.0], [-1.0, -1.0]])[:: int(sign)]
    assert np.abs(law.denoise(x_t, scale, std) - ends).max() < 1e-14
    assert law.denoise_variance(x_t, scale, std).max() < 1e-14
    exact = -0.5 * np.sum(((x_t - scale * ends) / std) ** 2, axis=1)
    assert residual(law.diffused_log_prob(x_t, scale, std), exact) < 1e-12


@pytest.mark.parametrize(("scale", "std", "name"), [(1e300, 0.8, "scale"), (0.6, 1e-300, "std"), (0.6, 1e300, "std")])
def test_noise_levels_whose_squares_overflow_are_refused_by_name(scale, std, name):
    law = CategoricalLaw([1.0], [[[0.5, 0.5]] * 2])
    for verb in law.denoise, law.denoise_variance, law.diffused_log_prob:
        with pytest.raises(ValueError, match=f"^{name} must be in "):
            verb(np.zeros((1, 2)), scale, std)


def test_samples_of_tables_have_their_masses():
    model, _ = small_tables()
    every = np.array(np.meshgrid(*[np.arange(3.0)] * 2)).reshape(2, -1).T
    drawn = model.sample(100_000, rng=0)
    observed = [(drawn == row).all(axis=1).sum() for row in every]
    assert stats.chisquare(observed, 100_000 * np.exp(model.log_prob(every))).pvalue > 1e-7
    wrong = np.full(9, 100_000 / 9)
    assert stats.chisquare(observed, wrong).pvalue < 1e-7


def test_digits_as_tables_beat_pixel_histograms_by_a_quarter_bit():
    """One table is the pixel histograms of the tour, 2.433 bits; forty tables reach 2.156 to 2.162 (seeds 0 to 3)."""
    x, x_test = (datasets.digits(split).images for split in ("train", "test"))

    def bits(K):
        model = CategoricalMixture(K, n_levels=17, smoothing=10, rng=0).fit(x)
        return -model.score(x_test) / (64 * np.log(2))

    assert bits(1) == pytest.approx(2.433, abs=0.005)
    assert bits(40) < 2.17


@pytest.mark.parametrize("x", [[[0.5]], [[-1.0]], [[3.0]]], ids=str)
def test_a_value_that_is_not_a_level_is_refused_with_its_position(x):
    with pytest.raises(ValueError, match=r"^x must hold whole numbers in 0\.\.2, as n_levels says, but x\[0, 0\] is "):
        CategoricalMixture(1, n_levels=3).fit(x)


# --- the law itself -----------------------------------------------------------------------------------------------


@st.composite
def laws(draw):
    """A CategoricalLaw with some probabilities 0, and whole numbers x."""
    K, D, L, N = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(2, 4)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    tables = rng.random((K, D, L)) * (rng.random((K, D, L)) < draw(st.sampled_from([1.0, 0.7])))
    tables[..., 0] += 1e-3
    weights = rng.random(K)
    law = CategoricalLaw(weights / weights.sum(), tables / tables.sum(axis=2, keepdims=True))
    return law, rng.integers(0, L, (N, D)).astype(float)


def product_by_hand(law, x):
    """π_c Π_d P_cd(x_d), (N, K), by indexing."""
    return np.array(
        [
            [
                w * np.prod([table[d, int(v)] for d, v in enumerate(row)])
                for w, table in zip(law.weights, law.probabilities, strict=True)
            ]
            for row in x
        ]
    )


@pytest.mark.equation(16, 17, 18)
@given(laws())
def test_e_step_and_free_energy_of_a_categorical_law(drawn):
    """(16), (18) against products by hand; the bound is log P at the posterior, and smaller by the KL elsewhere."""
    law, x = drawn
    joint = product_by_hand(law, x)
    mass = joint.sum(axis=1)
    log_resp, log_prob = e_step(x, law)
    assert residual(np.exp(log_prob), mass) < 1e-13
    assert np.array_equal(np.isneginf(log_prob), mass == 0)
    possible = mass > 0
    expected = np.where(possible[:, None], joint / np.where(possible, mass, 1)[:, None], law.weights)
    assert residual(np.exp(log_resp), expected) < 1e-12
    assert residual(law.posterior(x), expected) < 1e-12
    bound = free_energy(x, log_resp, law)
    assert np.array_equal(np.isneginf(bound), ~possible)
    assert residual(bound[possible], log_prob[possible]) < 1e-12
    q = np.full(joint.shape, 1 / len(law.weights))
    with np.errstate(divide="ignore"):
        lost = (q * (np.log(q) - np.log(expected))).sum(axis=1)
    elsewhere = free_energy(x, np.log(q), law)
    finite = np.isfinite(lost) & possible
    assert residual(elsewhere[finite], (log_prob - lost)[finite]) < 1e-12
    assert np.isneginf(elsewhere[~finite]).all()


@given(laws())
def test_levels_and_their_indicators_are_the_same_to_a_law(drawn):
    law, x = drawn
    one_hot = indicators(x, law.probabilities.shape[2])
    assert one_hot.shape == (*x.shape, law.probabilities.shape[2])
    assert np.array_equal(one_hot.argmax(axis=2), x)
    assert np.array_equal(one_hot.sum(axis=2), np.ones(x.shape))
    assert np.array_equal(law.log_joint(one_hot), law.log_joint(x))


@pytest.mark.equation(15, "em-for-tables")
@given(laws(), st.sampled_from([0.0, 0.7]))
def test_m_step_of_tables_is_weighted_frequencies(drawn, pseudo):
    """π = mean of q and P_kd(l) ∝ Σ_n q_nk 1[x_nd = l] + pseudo, against loops."""
    law, x = drawn
    K, D, L = law.probabilities.shape
    q = softmax(np.sin(1.0 + np.arange(len(x) * K)).reshape(len(x), K))
    after = categorical_m_step(indicators(x, L), np.log(q), np.full((D, L), pseudo))
    assert residual(after.weights, q.mean(axis=0)) < 1e-14
    for k in range(K):
        for d in range(D):
            counts = np.array([q[x[:, d] == level, k].sum() for level in range(L)]) + pseudo
            assert residual(after.probabilities[k, d], counts / counts.sum()) < 1e-13


def test_a_component_without_examples_has_weight_0_and_finite_tables():
    one_hot = indicators(np.array([[0.0], [0.0], [2.0]]), 3)
    log_resp = np.array([[0.0, -np.inf]] * 3)
    after = categorical_m_step(one_hot, log_resp)
    assert after.weights.tolist() == [1, 0]
    assert residual(after.probabilities[:, 0], np.array([[2, 0, 1]] * 2) / 3) < 1e-15
    for count in 0.5, 0.01:
        smoothed = categorical_m_step(one_hot, log_resp, np.full((1, 3), count))
        assert residual(smoothed.probabilities[1, 0], np.full(3, 1 / 3)) < 1e-15
    assert smoothed.log_joint(np.array([[1.0]]))[0, 1] == -np.inf


@pytest.mark.parametrize(
    ("weights", "probabilities", "message"),
    [
        ([0.5, 0.6], [[[1.0, 0.0]], [[0.5, 0.5]]], r"^weights must be non-negative and sum to 1"),
        ([1.5, -0.5], [[[1.0, 0.0]], [[0.5, 0.5]]], r"^weights must be non-negative"),
        ([1.0], [[[0.5, 0.6]]], r"^probabilities must be non-negative and sum to 1 over the last axis"),
        ([1.0], [[[1.5, -0.5]]], r"^probabilities must be non-negative"),
        ([1.0], [[0.5, 0.5]], r"^weights and probabilities must have shapes \(K,\) and \(K, D, n_levels\), got \(1,\)"),
        ([0.5, 0.5], [[[0.5, 0.5]]], r"^weights and probabilities must have shapes"),
        ([np.nan], [[[0.5, 0.5]]], r"^weights must be finite"),
    ],
)
def test_invalid_law_parameters_are_refused_by_name(weights, probabilities, message):
    with pytest.raises(ValueError, match=message):
        CategoricalLaw(weights, probabilities)


def test_a_law_owns_its_arrays_and_its_repr_is_short():
    weights = np.array([1.0])
    law = CategoricalLaw(weights, [[[0.5, 0.5]]])
    weights[0] = 0.5
    assert law.weights.tolist() == [1]
    assert CategoricalLaw([0.5, 0.5 + 5e-7], np.full((2, 1, 2), 0.5 + 1e-7)).sample(3, rng=0).shape == (3, 1)
    with pytest.raises(ValueError, match="read-only"):
        law.probabilities[0] = 0.1
    assert repr(law) == "CategoricalLaw(1 components of 2 levels in 1 dimensions)"
    with pytest.raises(ValueError, match=r"^x must have 1 columns"):
        law.log_prob(np.zeros((2, 3)))


# --- the model's own ----------------------------------------------------------------------------------------------


def test_samples_are_whole_numbers_without_a_minus_0_and_the_same_for_the_same_seed():
    model, _ = small_tables()
    drawn = model.sample(50, rng=3)
    assert drawn.shape == (50, 2)
    assert drawn.dtype.kind == "i"
    assert not np.signbit(drawn.astype(float)).any()
    assert np.array_equal(drawn, model.sample(50, rng=3))
    assert not np.array_equal(drawn, model.sample(50, rng=4))
    assert model.sample(0, rng=0).shape == (0, 2)
    with pytest.raises(ValueError, match=r"^n must be at least 0"):
        model.sample(-1)


def test_parameters_of_tables_are_counted():
    """K − 1 weights and K · D · (L − 1) probabilities."""
    model, x = small_tables()
    assert model.n_parameters_ == 1 + 2 * 2 * 2
    log_likelihood = model.log_prob(x).sum()
    assert model.bic(x) == pytest.approx(np.log(40) * 9 - 2 * log_likelihood, rel=1e-14)
    assert model.aic(x) == pytest.approx(18 - 2 * log_likelihood, rel=1e-14)
    more = CategoricalMixture(3, n_levels=5, rng=0).fit(np.random.default_rng(0).integers(0, 5, (60, 4)))
    assert more.n_parameters_ == 2 + 3 * 4 * 4


def test_the_model_answers_as_its_law():
    model, x = small_tables()
    law = model.law_
    assert np.array_equal(model.log_prob(x), law.log_prob(x))
    assert np.array_equal(model.predict_proba(x), np.exp(e_step(x, law)[0]))
    assert np.array_equal(model.sample(9, rng=1), law.sample(9, rng=1))
    x_t = np.random.default_rng(0).normal(size=(7, 2))
    for name in ("denoise", "denoise_variance", "diffused_log_prob"):
        assert np.array_equal(getattr(model, name)(x_t, 0.7, 0.4), getattr(law, name)(x_t, 0.7, 0.4))
    assert np.array_equal(model.levels(), [-1, 0, 1])


def test_tables_are_usable_after_every_step_and_report_their_loss():
    x = np.random.default_rng(1).integers(0, 3, (60, 4))
    model = CategoricalMixture(3, n_levels=3, smoothing=0.0, max_iter=5, tol=0, rng=0)
    for state in model.train(x):
        assert model.score(x) == pytest.approx(-state.loss, rel=1e-12)
        assert model.lower_bounds_[-1] == -state.loss
        assert model.n_iter_ == state.step


def test_labels_of_samples_are_their_components():
    """With disjoint tables the component of every draw is known."""
    law = CategoricalLaw([0.25, 0.75], [[[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2])
    x, labels = law.sample(400, rng=0, return_labels=True)
    assert np.array_equal(x[:, 0], labels)
    assert 0 < labels.mean() < 1
    assert np.array_equal(x, law.sample(400, rng=0))


@pytest.mark.parametrize("verb", ["log_prob", "elbo", "predict", "predict_proba", "bic"])
def test_the_message_names_the_row_behind_the_first_block(monkeypatch, verb):
    x = np.zeros((50, 2))
    x[::2], x[40, 1] = 1, 3
    model = CategoricalMixture(1, n_levels=2, rng=0).fit(x[:40])
    monkeypatch.setattr("scratchgen.blocks.BLOCK", 30)
    with pytest.raises(ValueError, match=r"0\.\.1, as n_levels says, but x\[40, 1\] is 3"):
        getattr(model, verb)(x)
