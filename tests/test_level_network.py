"""LevelNetwork: its law, its ε̂, its hand-written derivatives, and the bounds that it makes exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchgen import DDPM, VP, CategoricalMixture, NoiseSchedule, ScoreSDE
from scratchgen.conformance import check_gradient
from scratchgen.level_network import N_CORRECTIONS, LevelNetwork
from tests.strategies import residual


@st.composite
def level_networks(draw, zero=False):
    """A float64 network with random parameters (or F = 0), points, noise levels, and labels."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    D, n_levels, n_classes = draw(st.integers(1, 3)), draw(st.sampled_from([2, 3, 17])), draw(st.sampled_from([0, 2]))
    histograms = rng.dirichlet(np.ones(n_levels), size=D)
    A = rng.standard_normal((D, D))
    network = LevelNetwork(histograms, A @ A.T, (5,), 2, n_classes, rng, np.float64)
    if not zero:
        network.mlp.parameters[:] = 0.5 * rng.standard_normal(len(network.mlp.parameters))
    labels = np.array([1, -1, 0, 1]) if n_classes else None
    return network, histograms, rng.standard_normal((4, D)), rng.uniform(0.2, 1, 4), rng.uniform(0.2, 1, 4), labels, rng


@given(level_networks(zero=True))
def test_untrained_it_is_exact_for_independent_dimensions(drawn):
    network, histograms, x, scale, std, labels, _ = drawn
    tables = CategoricalMixture(1, n_levels=histograms.shape[1])
    tables.weights_, tables.probabilities_, tables.n_features_in_ = np.ones(1), histograms[None], len(histograms)
    for i in range(len(x)):
        mean = tables.denoise(x[[i]], scale[i], std[i])
        exact = (x[[i]] - scale[i] * mean) / std[i]
        assert (
            residual(network(x[[i]], scale[i], std[i], labels=None if labels is None else labels[[i]]), exact) < 1e-10
        )


@given(level_networks())
def test_noise_is_that_of_the_laws_mean(drawn):
    network, _, x, scale, std, labels, _ = drawn
    law = network.law(x, scale, std, labels)
    assert residual(law.sum(axis=2), np.ones(x.shape)) < 1e-12
    mean = law @ network.levels
    eps_hat = (x - scale[:, None] * mean) / std[:, None]
    assert residual(network(x, scale, std, labels=labels), eps_hat) < 1e-12
    assert residual(network.forward(x, scale, std, labels=labels), eps_hat) < 1e-12
    if labels is not None:
        assert residual(network(x, scale, std), network(x, scale, std, labels=np.full(4, -1))) == 0
        assert np.abs(network(x, scale, std) - eps_hat)[labels >= 0].max() > 0


@given(level_networks())
def test_backward_is_the_derivative_to_parameters_and_to_x(drawn):
    network, _, x, scale, std, labels, rng = drawn
    weight = rng.standard_normal(x.shape)

    def loss_of_x(flat):
        return float((network(flat.reshape(x.shape), scale, std, labels=labels) * weight).sum())

    def gradient_of_x(flat):
        network.forward(flat.reshape(x.shape), scale, std, labels=labels)
        return network.backward(weight).ravel()

    check = check_gradient(loss_of_x, gradient_of_x, x.ravel(), np.eye(x.size))
    assert check, check

    def loss(flat):
        network.mlp.parameters[:] = flat
        return loss_of_x(x.ravel())

    def gradient(flat):
        network.mlp.parameters[:] = flat
        gradient_of_x(x.ravel())
        return network.mlp.gradient.copy()

    start = network.mlp.parameters.copy()
    check = check_gradient(loss, gradient, start, rng.standard_normal((3, len(start))))
    assert check, check


def test_corrections_lift_the_ends_and_tilt_the_middle():
    """F = its bias: log-odds move by B, the indicators of both ends, the level and its square."""
    network = LevelNetwork(np.full((1, 5), 0.2), np.eye(1), (), 1, rng=0, dtype=np.float64)
    x = np.array([[0.3]])
    before = np.log(network.law(x, 0.6, 0.8)[0, 0])
    network.mlp.biases[-1][:] = F = np.array([0.7, -0.4, 0.3, 0.2])
    after = np.log(network.law(x, 0.6, 0.8)[0, 0])
    levels = np.array([-1, -0.5, 0, 0.5, 1])
    moved = F[0] * (levels == -1) + F[1] * (levels == 1) + F[2] * levels + F[3] * levels**2
    assert residual(np.diff(after - before), np.diff(moved)) < 1e-12
    assert len(F) == N_CORRECTIONS


def test_a_level_never_seen_has_no_mass_and_draws_follow_the_law():
    network = LevelNetwork(np.array([[0.5, 0.0, 0.5], [0.2, 0.3, 0.5]]), np.eye(2), (4,), rng=0)
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


# --- the bounds -------------------------------------------------------------------------------------------

VALUES, P = np.array([[0.0], [1.0], [4.0]]), np.array([0.5, 0.3, 0.2])
ENTROPY = float(-(P * np.log(P)).sum())


def exact_sde(t_min=1e-3):
    """One column of five levels: F = 0 is the exact answer once the histogram is the truth's."""
    model = ScoreSDE(VP(), t_min, n_levels=5, prediction="levels", hidden=(2,), n_steps=1, rng=0)
    model.fit(np.repeat(VALUES, [5, 3, 2], axis=0))
    histogram = np.array([[0.5, 0.3, 0.0, 0.0, 0.2]])
    model.network_ = LevelNetwork(histogram, np.eye(1), (2,), rng=0, dtype=np.float64)
    return model


def _variance_of_levels(elbo):
    """What the levels' own −log P contribute to the variance: their counts are P exactly."""
    parts = np.split(elbo, np.cumsum(np.rint(2000 * P).astype(int))[:-1])
    return float(P @ [(part.mean() - elbo.mean()) ** 2 for part in parts])


@pytest.mark.parametrize("t_min", [1e-3, 0.1, 0.4])
def test_continuous_bound_of_the_exact_law_is_the_entropy(t_min):
    """L_T + ½∫mmse d(snr) + H(x_0 | x_{t_min}) = H(x_0) + KL(p_T‖π), wherever the process is stopped: I-MMSE.

    By fine quadrature over log-SNR and noise; and by draws through `elbo` itself, within 5.5 standard errors (the
    times, which its examples share, are so many that they add 1e-3).
    """
    model = exact_sde(t_min)
    x = np.repeat(VALUES, np.rint(2000 * P).astype(int), axis=0)
    elbo = model.elbo(x, rng=0, n_times=1000)
    assert abs(-elbo.mean() - ENTROPY) < 5.5 * np.sqrt(elbo.var() - _variance_of_levels(elbo)) / 2000**0.5 + 2e-3
    sde, network = model.sde_, model.network_
    xi, step = np.linspace(-9, 9, 2001, retstep=True)
    mass = step * np.exp(-0.5 * xi**2) / np.sqrt(2 * np.pi)
    levels = VALUES / 2 - 1
    low, high = sde.log_snr(np.array([sde.horizon, t_min]))
    nodes, weights = np.polynomial.legendre.leggauss(60)
    total = 0.0
    for log_snr, weight in zip(low + (high - low) * (nodes + 1) / 2, weights * (high - low) / 2, strict=True):
        scale, std = sde.level(float(sde.time_at(log_snr)))
        for level, p in zip(levels, P, strict=True):
            error = xi[:, None] - network(scale * level + std * xi[:, None], scale, std)
            total += 0.5 * weight * p * (mass @ error[:, 0] ** 2)
    scale, std = sde.level(t_min)
    for value, level, p in zip(VALUES, levels, P, strict=True):
        x_t = scale * level + std * xi[:, None]
        total -= p * (mass @ network.log_mass(np.broadcast_to(value, x_t.shape), x_t, scale, std))
    scale, std = sde.level(sde.horizon)
    total += float(P @ (0.5 * scale**2 * levels[:, 0] ** 2))  # KL(q(x_T | x)‖π), π's variance being q's
    assert total == pytest.approx(ENTROPY, abs=5e-5)


@pytest.mark.parametrize("T", [5, 30])
def test_bound_of_the_discrete_chain_lies_above_the_entropy(T):
    model = DDPM(NoiseSchedule.linear(T), n_levels=5, prediction="levels", hidden=(2,), n_steps=1, rng=0)
    x = np.repeat(VALUES, np.rint(4000 * P).astype(int), axis=0)
    model.fit(x)
    model.network_ = exact_sde().network_
    elbo = model.elbo(x, rng=0)
    slack = 5.5 * elbo.std() / 4000**0.5
    assert ENTROPY - slack < -elbo.mean() < ENTROPY + 0.6


def test_whole_numbers_that_depend_on_each_other_are_learnt():
    """Two columns that are equal: log 3 nats, where independent columns cost twice that."""
    x = np.repeat(np.random.default_rng(0).integers(0, 3, (600, 1)), 2, axis=1)
    parameters = {"n_levels": 3, "prediction": "levels", "hidden": (32,), "n_steps": 600, "learning_rate": 1e-2}
    for model, most in (ScoreSDE(**parameters, rng=0), 1.25), (DDPM(variance="optimal", **parameters, rng=0), 1.9):
        assert -model.fit(x).elbo(x, rng=0).mean() < most  # Gaussian steps between atoms cost the chain 0.6 nats
        drawn = model.sample(300, rng=0)
        assert (drawn[:, 0] == drawn[:, 1]).mean() > 0.95
        assert set(np.unique(drawn)) == {0.0, 1.0, 2.0}
    with pytest.raises(ValueError, match=r"^log_prob is a density"):
        ScoreSDE(**parameters, rng=0).fit(x).log_prob(x)


@pytest.mark.parametrize("cls", [DDPM, ScoreSDE])
def test_it_comes_back_from_a_file_and_needs_levels(cls, tmp_path):
    x = np.random.default_rng(0).integers(0, 4, (60, 2))
    model = cls(n_levels=4, prediction="levels", hidden=(4,), n_steps=5, weight_decay=0.1, rng=0).fit(x)
    model.save(tmp_path / "m.npz")
    loaded = cls.load(tmp_path / "m.npz")
    assert loaded.elbo(x, rng=0).tobytes() == model.elbo(x, rng=0).tobytes()
    assert loaded.sample(9, rng=0).tobytes() == model.sample(9, rng=0).tobytes()
    assert np.isfinite(model.score(x))
    with pytest.raises(ValueError, match=r"^n_levels must say how many levels x has for prediction='levels', got None"):
        cls(prediction="levels").fit(x)


def test_score_sde_in_bins_bounds_a_mass():
    """prediction="v" on whole numbers: the Gaussian decoder's mass in the bins, and samples that are whole."""
    x = np.random.default_rng(0).integers(0, 3, (300, 2))
    model = ScoreSDE(n_levels=3, hidden=(32,), n_steps=400, rng=0).fit(x)
    assert -model.elbo(x, rng=0).mean() > 2 * np.log(3) - 0.05
    assert set(np.unique(model.sample(200, rng=0))) <= {0.0, 1.0, 2.0}
    assert model.score(x) == pytest.approx(model.elbo(x, rng=0).mean())
