"""CategoricalDenoiser: its distribution, inputs, draws and ε̂.  The derivatives are tested in `test_derivatives`."""

import mpmath
import numpy as np
import pytest
from hypothesis import given

from scratchgen.likelihood import level_values
from scratchgen.nn import NO_LABEL, CategoricalDenoiser, time_features
from scratchgen.nn.categorical_denoiser import N_CORRECTIONS
from tests.networks import categorical_denoisers
from tests.strategies import residual

# --- the law and its mean ---------------------------------------------------------------------------------


@pytest.mark.equation("level-denoiser")
@given(categorical_denoisers(trained=False))
def test_untrained_it_is_exact_for_independent_dimensions(case):
    """ε̂ = (x − scale E[x_0 | x])/std, with Bayes' rule in each dimension separately."""
    network, x, N = case.network, case.x, len(case.x)
    scale, std = (np.broadcast_to(case.given[name], N)[:, None, None] for name in ("scale", "std"))
    h = np.exp(network._log_histograms.transpose(1, 2, 0))[case.given.get("labels", [-1])]
    joint = h * np.exp(-0.5 * ((x[:, :, None] - scale * network.levels) / std) ** 2)
    mean = (joint * network.levels).sum(axis=2) / joint.sum(axis=2)
    assert residual(network(x, **case.given), (x - scale[:, :, 0] * mean) / std[:, :, 0]) < 1e-10


@given(categorical_denoisers())
def test_noise_is_that_of_the_laws_mean(case):
    network, x, N = case.network, case.x, len(case.x)
    scale, std = (np.broadcast_to(case.given[name], N)[:, None] for name in ("scale", "std"))
    law = network.law(x, **case.given)
    assert residual(law.sum(axis=2), np.ones(x.shape)) < 1e-12
    eps_hat = (x - scale * (law @ network.levels)) / std
    assert residual(network(x, **case.given), eps_hat) < 1e-12
    labels = case.given.get("labels")
    if labels is not None:
        unlabelled = {name: value for name, value in case.given.items() if name != "labels"}
        none = network(x, **unlabelled)
        assert np.array_equal(none, network(x, **unlabelled, labels=np.full(N, NO_LABEL)))
        assert residual(none[labels < 0], eps_hat[labels < 0]) < 1e-12


@given(categorical_denoisers())
def test_each_example_has_its_own_level_and_label(case):
    network, N = case.network, len(case.x)
    together = network.law(case.x, **case.given)
    for i in range(N):
        own = {name: value if np.ndim(value) == 0 else value[[i]] for name, value in case.given.items()}
        assert residual(network.law(case.x[[i]], **own)[0], together[i]) < 1e-12


def test_the_law_of_an_untrained_network_starts_from_the_histograms_of_the_class():
    """A network of one class alone has the law of a network of three; without a label the histograms are all rows'."""
    rng = np.random.default_rng(0)
    tables, x = rng.dirichlet(np.ones(5), size=(4, 2)), rng.standard_normal((4, 2))
    network = CategoricalDenoiser(tables[3], np.eye(2), (4,), n_classes=3, rng=0, class_histograms=tables[:3])
    law = network.law(x, 0.6, 0.8, np.array([0, 2, NO_LABEL, 1]))
    for i, table in enumerate(tables[[0, 2, 3, 1]]):
        assert residual(law[[i]], CategoricalDenoiser(table, np.eye(2), (4,), rng=0).law(x[[i]], 0.6, 0.8)) < 1e-6
    assert residual(law[[2]], network.law(x[[2]], 0.6, 0.8)) < 1e-12
    assert np.abs(law[0] - network.law(x, 0.6, 0.8)[0]).max() > 1e-2


def test_histograms_of_classes_are_refused_with_another_shape_or_sum():
    arguments = np.full((2, 3), 1 / 3), np.eye(2)
    for table in np.full((2, 2, 3), 1 / 3), np.full((3, 2, 4), 1 / 4):
        with pytest.raises(ValueError, match=r"^class_histograms must have shape \(C, D, n_levels\)"):
            CategoricalDenoiser(*arguments, n_classes=3, class_histograms=table)
    with pytest.raises(ValueError, match=r"class_histograms must sum to 1"):
        CategoricalDenoiser(*arguments, n_classes=3, class_histograms=np.full((3, 2, 3), 0.5))


@pytest.mark.equation("level-denoiser")
@given(categorical_denoisers())
def test_logits_are_the_logarithm_of_the_law_up_to_a_constant(case):
    logits, law = case.network.logits(case.x, **case.given), case.network.law(case.x, **case.given)
    assert residual(logits - logits[:, :, :1], np.log(law) - np.log(law[:, :, :1])) < 1e-9


# --- inputs of the MLP ------------------------------------------------------------------------------------


def with_linear_mlp(D=2, n_levels=5, n_classes=2, n_time_features=2):
    """A denoiser with a linear F that is 0, its histograms and its covariance."""
    rng = np.random.default_rng(0)
    histograms, A = rng.dirichlet(np.ones(n_levels), size=D), rng.standard_normal((D, D))
    covariance = A @ A.T
    network = CategoricalDenoiser(histograms, covariance, (), n_time_features, n_classes, rng=0, dtype=np.float64)
    network.parameters[:] = 0
    return network, histograms, covariance


def seen_by_the_mlp(network, x, scale, std, labels=None):
    """The inputs of the MLP, (N, inputs), from the distribution: F_0 := one input tilts the log-odds of dimension 0."""
    columns = []
    for i in range(network.mlp.sizes[0]):
        network.parameters[:] = 0
        before = np.log(network.law(x, scale, std, labels)[:, 0])
        network.mlp.weights[0][i, 2] = 1  # the correction of dimension 0 that is proportional to the level
        after = np.log(network.law(x, scale, std, labels)[:, 0])
        tilt = np.diff(after - before, axis=1) / np.diff(network.levels)
        assert residual(tilt, np.repeat(tilt[:, :1], tilt.shape[1], axis=1)) < 1e-9
        columns.append(tilt[:, 0])
    return np.stack(columns, axis=1)


@pytest.mark.parametrize(
    "level", [(0.6, 0.8), (np.array([0.9, 0.5, 0.7]), np.array([0.3, 0.8, 0.6]))], ids=["one", "own"]
)
def test_inputs_are_x_the_posterior_mean_the_wiener_denoiser_log_snr_and_label(level):
    network, histograms, covariance = with_linear_mlp()
    x, labels = np.random.default_rng(1).standard_normal((3, 2)), np.array([1, NO_LABEL, 0])
    seen = seen_by_the_mlp(network, x, *level, labels)
    levels, mean = level_values(5), histograms @ level_values(5)
    for i, (scale, std) in enumerate(rows_of(level)):
        centred = x[i] - scale * mean
        likelihood = histograms * np.exp(-0.5 * ((x[i][:, None] - scale * levels) / std) ** 2)
        posterior_mean = (likelihood @ levels) / likelihood.sum(axis=1)
        # E[x_0 − m | x] for Gaussian data with this mean and covariance: scale C (scale² C + std² I)⁻¹ (x − scale m)
        wiener = scale * covariance @ np.linalg.solve(scale**2 * covariance + std**2 * np.eye(2), centred)
        clock = time_features(np.log([scale**2 / std**2]), 2)[0]
        label = [float(labels[i] == c) for c in range(2)]
        right = np.concatenate([centred / np.sqrt(scale**2 + std**2), posterior_mean - mean, wiener, clock, label])
        assert residual(seen[i], right) < 1e-9
    assert np.abs(seen[:, 4:6] - seen[:, 2:4]).min() > 1e-3  # the two denoisers differ


def rows_of(level):
    """scale and std of three examples."""
    return [tuple(float(np.broadcast_to(part, 3)[i]) for part in level) for i in range(3)]


def test_wiener_denoiser_of_a_singular_covariance_leaves_out_what_does_not_vary():
    """Two equal columns: the difference of x is pure noise, and the denoiser gives both columns their common part."""
    network = CategoricalDenoiser(np.full((2, 3), 1 / 3), np.full((2, 2), 0.5), (), 0, rng=0, dtype=np.float64)
    seen = seen_by_the_mlp(network, np.array([[0.9, -0.3]]), 0.6, 0.8)[0]
    assert seen[4] == pytest.approx(seen[5], rel=1e-9)
    assert seen[4] == pytest.approx(0.6 * 0.5 * (0.9 - 0.3) / (0.36 * 1.0 + 0.64), rel=1e-9)


def test_corrections_lift_the_ends_and_tilt_the_middle():
    """F equals its bias: the log-odds move by B, the indicators of both ends, the level and its square."""
    network = CategoricalDenoiser(np.full((1, 5), 0.2), np.eye(1), (), 1, rng=0, dtype=np.float64)
    x = np.array([[0.3]])
    before = np.log(network.law(x, 0.6, 0.8)[0, 0])
    network.mlp.biases[-1][:] = F = np.array([0.7, -0.4, 0.3, 0.2])
    after = np.log(network.law(x, 0.6, 0.8)[0, 0])
    levels = np.array([-1, -0.5, 0, 0.5, 1])
    moved = F[0] * (levels == -1) + F[1] * (levels == 1) + F[2] * levels + F[3] * levels**2
    assert residual(np.diff(after - before), np.diff(moved)) < 1e-12
    assert len(F) == N_CORRECTIONS


@pytest.mark.equation("level-draws")
def test_a_level_never_seen_has_no_mass_and_draws_follow_the_law():
    network = CategoricalDenoiser(np.array([[0.5, 0.0, 0.5], [0.2, 0.3, 0.5]]), np.eye(2), (4,), rng=0)
    x = np.tile([[0.1, -0.4]], (40_000, 1))
    law = network.law(x[:1], 0.6, 0.8)[0]
    assert law[0, 1] == 0
    drawn = network.draw(np.random.default_rng(0), x, 0.6, 0.8)
    for d in range(2):
        counts = np.bincount(drawn[:, d].astype(int), minlength=3)
        seen = law[d] > 0
        z = (counts - 40_000 * law[d])[seen] / np.sqrt(40_000 * law[d] * (1 - law[d]))[seen]
        assert np.abs(z).max() < 5.5
        assert counts[~seen].sum() == 0
    level = np.array([[2, 1]])
    assert network.log_mass(level, x[:1], 0.6, 0.8) == pytest.approx(np.log(law[0, 2] * law[1, 1]), rel=1e-5)


@pytest.mark.parametrize("labels", [None, np.zeros(0, dtype=int)])
def test_no_rows_have_no_noise_and_no_gradient(labels):
    network = CategoricalDenoiser(np.full((3, 4), 0.25), np.eye(3), (4,), n_classes=2, rng=0)
    none = np.zeros((0, 3))
    network.gradient[:] = 1.0
    eps_hat, backward = network.vjp(none, 0.6, 0.8, labels)
    assert eps_hat.shape == network(none, 0.6, 0.8, labels).shape == backward(none, inputs=True).shape == (0, 3)
    assert not network.gradient.any()


@pytest.mark.equation("level-mass")
def test_mass_of_a_level_keeps_its_digits_where_the_law_underflows():
    """log P is −∞ for a level that never occurs, and finite for an unlikely level: −3,000 nats and less."""
    histograms = np.array([[0.4, 0.0, 0.3, 0.3]])
    single, double = (
        CategoricalDenoiser(histograms, np.eye(1), (4,), rng=0, dtype=d) for d in (np.float32, np.float64)
    )
    x, level = np.full((4, 1), -1.0), np.arange(4)[:, None]
    mass = single.log_mass(level, x, 1.0, 0.01)
    logits = np.array([0.0, -np.inf, *(-0.5 * ((-1 - np.array([1 / 3, 1])) / 0.01) ** 2 + np.log(3 / 4))])
    assert np.isneginf(mass[1])
    assert mass[[0, 2, 3]] == pytest.approx(logits[[0, 2, 3]], rel=1e-5)
    assert double.log_mass(level, x, 1.0, 0.01)[[0, 2, 3]] == pytest.approx(logits[[0, 2, 3]], rel=1e-12)
    law = single.law(x[:1], 1.0, 0.01)[0, 0]
    assert law.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_law_of_unlikely_levels_is_right_down_to_minus_600_nats(dtype):
    """Two dimensions, against 40 digits; float32 would give 0 below 1e-31, whose logarithm is −∞."""
    histograms = np.array([[0.25, 0.25, 0.5], [0.5, 0.25, 0.25]])
    network = CategoricalDenoiser(histograms, np.eye(2), (4,), rng=0, dtype=dtype)
    for std in 0.5, 0.1, 0.0625, 0.058:
        law = network.law(np.array([[-1.0, 1.0]]), 1.0, std)
        assert law.dtype == np.float64
        with mpmath.workdps(40):
            for d, x in enumerate((-1, 1)):
                distances = [(x - level) / mpmath.mpf(std) for level in (-1, 0, 1)]
                joint = [p * mpmath.exp(-(z**2) / 2) for p, z in zip(histograms[d], distances, strict=True)]
                expected = [float(mpmath.log(j / sum(joint))) for j in joint]
                assert np.log(law[0, d]) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert np.log(law.min()) < -590


@pytest.mark.equation("level-mass")
@given(categorical_denoisers())
def test_mass_is_the_logarithm_of_the_law(case):
    network, x = case.network, case.x
    level = case.rng.integers(0, len(network.levels), x.shape)
    law = np.take_along_axis(network.law(x, **case.given), level[:, :, None], axis=2)[:, :, 0]
    assert residual(network.log_mass(level.astype(float), x, **case.given), np.log(law).sum(axis=1)) < 1e-12


def test_draws_depend_on_labels_and_on_rng_alone():
    network = CategoricalDenoiser(np.full((1, 3), 1 / 3), np.eye(1), (), 0, 2, rng=0)
    network.mlp.weights[0][-1, 2] = 50.0  # label 1 means the last level
    x, labels = np.zeros((200, 1)), np.tile([0, 1], 100)
    first, again, other = (network.draw(np.random.default_rng(seed), x, 0.1, 1.0, labels) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first[labels == 1] == 2).all()
    assert set(np.unique(first[labels == 0])) == {0.0, 1.0, 2.0}
    assert network.log_mass(np.full((2, 1), 2), x[:2], 0.1, 1.0, labels[:2])[1] == pytest.approx(0, abs=1e-6)


def test_the_same_seed_gives_the_same_network_and_another_seed_another():
    first, again, other = (CategoricalDenoiser(np.full((2, 3), 1 / 3), np.eye(2), (8,), rng=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.parameters, again.parameters)
    assert not np.array_equal(first.parameters, other.parameters)


@pytest.mark.parametrize("name", ["n_time_features", "n_classes", "n_augment"])
def test_the_denoiser_refuses_negative_counts(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 0, got -1"):
        CategoricalDenoiser(np.full((1, 3), 1 / 3), np.eye(1), **{name: -1})
