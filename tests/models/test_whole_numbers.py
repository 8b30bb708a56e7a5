"""Models of whole numbers with a CategoricalDenoiser: exact bounds of an exact distribution, fits, files."""

import numpy as np
import pytest

from scratchgen import DDPM, VP, NoiseSchedule, ScoreSDE
from scratchgen.nn import CategoricalDenoiser

# --- the bounds -------------------------------------------------------------------------------------------

VALUES, P = np.array([[0.0], [1.0], [4.0]]), np.array([0.5, 0.3, 0.2])
ENTROPY = float(-(P * np.log(P)).sum())


def exact_sde(t_min=1e-3):
    """One column of five levels: F = 0 is the exact answer if the histogram is that of the data."""
    model = ScoreSDE(VP(), t_min, n_levels=5, prediction="levels", hidden=(2,), n_steps=1, rng=0)
    model.fit(np.repeat(VALUES, [5, 3, 2], axis=0))
    histogram = np.array([[0.5, 0.3, 0.0, 0.0, 0.2]])
    model.network_ = CategoricalDenoiser(histogram, np.eye(1), (2,), rng=0, dtype=np.float64)
    return model


def _variance_of_levels(elbo):
    """The part of the variance that is due to the different −log P of the levels: their counts are exactly P."""
    parts = np.split(elbo, np.cumsum(np.rint(2000 * P).astype(int))[:-1])
    return float(P @ [(part.mean() - elbo.mean()) ** 2 for part in parts])


@pytest.mark.parametrize("t_min", [1e-3, 0.1, 0.4])
def test_continuous_bound_of_the_exact_law_is_the_entropy(t_min):
    """L_T + ½∫mmse d(snr) + H(x_0 | x_{t_min}) = H(x_0) + KL(p_T‖π) for every t_min: the I-MMSE relation.

    By fine quadrature over log-SNR and noise; and by draws of `elbo`, within 5.5 standard errors.  Its examples share
    their times; there are so many times that they add an error of 1e-3.
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
    """Two equal columns: log 3 nats; independent columns would cost twice as much."""
    x = np.repeat(np.random.default_rng(0).integers(0, 3, (600, 1)), 2, axis=1)
    parameters = {"n_levels": 3, "prediction": "levels", "hidden": (32,), "n_steps": 600, "learning_rate": 1e-2}
    for model, most in (ScoreSDE(**parameters, rng=0), 1.25), (DDPM(variance="optimal", **parameters, rng=0), 1.9):
        assert (
            -model.fit(x).elbo(x, rng=0).mean() < most
        )  # Gaussian steps between atoms cost the chain 0.6 nats more more
        drawn = model.sample(300, rng=0)
        assert (drawn[:, 0] == drawn[:, 1]).mean() > 0.95
        assert set(np.unique(drawn)) == {0.0, 1.0, 2.0}
    with pytest.raises(ValueError, match=r"^log_prob is a density"):
        ScoreSDE(**parameters, rng=0).fit(x).log_prob(x)


@pytest.mark.parametrize("cls", [DDPM, ScoreSDE])
def test_a_model_of_levels_survives_save_and_load_and_needs_n_levels(cls, tmp_path):
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
    """prediction="v" on whole numbers: the mass of the Gaussian decoder in the bins, and samples that are whole."""
    x = np.random.default_rng(0).integers(0, 3, (300, 2))
    model = ScoreSDE(n_levels=3, hidden=(32,), n_steps=400, rng=0).fit(x)
    assert -model.elbo(x, rng=0).mean() > 2 * np.log(3) - 0.05
    assert set(np.unique(model.sample(200, rng=0))) <= {0.0, 1.0, 2.0}
    assert model.score(x) == pytest.approx(model.elbo(x, rng=0).mean())
