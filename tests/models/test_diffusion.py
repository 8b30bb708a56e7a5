"""DDPM and ScoreSDE: the draws of training, the moving average, the learning rate, one learnt distribution."""

import numpy as np
import pytest
from scipy import stats

from scratchgen import DDPM, VP, NoiseSchedule, ScoreSDE
from scratchgen.nn import NoiseNetwork
from tests.exact import CLUSTERS, GAUSSIAN, ExactNoise, exact, in_units_of
from tests.strategies import FALSE_ALARM, residual

DIFFUSION = {
    DDPM: {"schedule": NoiseSchedule.linear(10)},
    ScoreSDE: {"sde": VP(), "t_min": 0.05},
}
both = pytest.mark.parametrize("cls", DIFFUSION)


def tiny(cls, **parameters):
    return cls(**{**DIFFUSION[cls], "hidden": (4,), "n_steps": 60, "batch_size": 64, "rng": 0, **parameters})


class Spy:
    """Records points, noise levels, predictions and losses during the training of a NoiseNetwork.

    The noise follows from the gradient of the mean of ‖ε − ε̂‖² with respect to ε̂, which is 2 (ε̂ − ε)/n.
    """

    def __init__(self, monkeypatch):
        vjp = NoiseNetwork.vjp
        self.x_t, self.scale, self.std, self.noise, self.loss = [], [], [], [], []

        def spied(network, x, scale, std, *rest, **given):
            eps_hat, backward = vjp(network, x, scale, std, *rest, **given)
            for record, value in (self.x_t, x), (self.scale, scale), (self.std, std):
                record.append(np.array(value, dtype=np.float64))

            def spied_backward(grad, inputs=False):
                error = grad * len(grad) / 2
                self.noise.append((eps_hat - error).astype(np.float64))
                self.loss.append(float((error**2).sum() / len(error)))
                return backward(grad, inputs)

            return eps_hat, spied_backward

        monkeypatch.setattr(NoiseNetwork, "vjp", spied)


@both
def test_training_predicts_the_noise_that_was_added_to_the_data(cls, monkeypatch):
    """x_t = scale x_0 + std ε with a row x_0 of the data; the loss is E‖ε − ε̂‖², summed over dimensions."""
    spy = Spy(monkeypatch)
    x = np.random.default_rng(0).permutation(np.arange(-12.0, 13.0)).reshape(-1, 1) * [1.0, 3.0]
    model = tiny(cls)
    losses = [state.loss for state in model.train(x)]
    assert residual(losses, spy.loss) < 1e-5
    assert (model.losses_ == losses).all()
    noise, scale, std = np.concatenate(spy.noise), np.concatenate(spy.scale), np.concatenate(spy.std)
    keep = scale > 0.2  # where float32 leaves enough of x_0
    x0 = model.to_data((np.concatenate(spy.x_t) - std[:, None] * noise) / scale[:, None])[keep]
    assert abs(x0 - np.rint(x0)).max() < 1e-3
    rows = np.rint(x0)
    assert (rows[:, 1] == 3 * rows[:, 0]).all()
    assert set(rows[:, 0]) == set(x[:, 0])
    assert stats.chisquare(np.unique_counts(rows[:, 0]).counts).pvalue > FALSE_ALARM
    for column in noise.T:
        assert stats.kstest(column, "norm").pvalue > FALSE_ALARM
    assert abs(np.corrcoef(noise.T)[0, 1]) < 5.5 / len(noise) ** 0.5


@both
def test_sampling_network_is_the_moving_average_of_the_trained_one(cls):
    """Training does not depend on the average, so that a run without one has the parameters that are averaged."""
    x, decay = GAUSSIAN.sample(50, rng=0), 0.7
    raw = tiny(cls, ema_decay=0.0, learning_rate=0.05, n_steps=30)
    path = [raw.parameters_.copy() for _ in raw.train(x)]
    average = tiny(cls, ema_decay=decay, learning_rate=0.05, n_steps=30)
    expected = None
    for n, _ in enumerate(average.train(x), start=1):
        if expected is None:
            start = expected = (average.parameters_ - (1 - 2 / 11) * path[0]) / (2 / 11)
        d = min(decay, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * path[n - 1]
        assert residual(average.parameters_, expected) < 1e-4
    untrained = NoiseNetwork(2, (4,), n_coordinate_features=1, rng=0)
    assert residual(start, untrained.mlp.parameters) < 1e-4  # the start of both
    assert average.network_.mlp.parameters is average.parameters_
    assert residual(raw.parameters_, average.parameters_) > 1e-3
    assert (average.eps_hat(x, 1) == average.network_(x, *level(average))).all()


def level(model):
    if isinstance(model, DDPM):
        return float(model.schedule_.alpha_bar[1]), float(model.schedule_.beta_bar[1])
    return tuple(float(v) for v in model.sde_.marginal(1))


@both
def test_learning_rate_rises_then_falls_to_0(cls):
    """A step of Adam is at most about its rate: warm-up over a tenth of a short run, then half a cosine."""
    model = tiny(cls, ema_decay=0.0, learning_rate=1e-2, n_steps=200)
    path = [model.parameters_.copy() for _ in model.train(GAUSSIAN.sample(50, rng=0))]
    moves = np.abs(np.diff(path, axis=0)).max(axis=1)
    assert moves[:3].max() < 0.3 * moves[15:60].max()
    assert moves[-3:].max() < 0.01 * moves[15:60].max()
    assert moves.max() < 2.5e-2


@both
def test_training_learns_a_mixture(cls):
    """The bound of the trained network minus that of the exact one, with the same noise."""
    parameters = {"hidden": (32, 32), "n_steps": 1500, "batch_size": 128, "learning_rate": 1e-2, "ema_decay": 0.99}
    model = cls(**DIFFUSION[cls], **parameters, rng=0).fit(CLUSTERS.sample(2000, rng=0))
    oracle, _ = exact(cls(**DIFFUSION[cls], n_steps=1), CLUSTERS)
    oracle.mean_, oracle.scale_ = model.mean_, model.scale_
    oracle.network_ = ExactNoise(in_units_of(model, CLUSTERS))
    untrained = tiny(cls, n_steps=1).fit(CLUSTERS.sample(2000, rng=0))
    x = CLUSTERS.sample(200, rng=1)
    best, learnt, before = (m.elbo(x, rng=2).mean() for m in (oracle, model, untrained))
    assert 0 < best - learnt < 0.12  # nats; measured 0.04 for both
    assert best - before > 0.5


@both
@pytest.mark.parametrize(("dimension", "n"), [(1, 1), (2, 1), (3, 0), (4, 0)])
def test_one_or_two_columns_have_one_frequency_by_default(cls, dimension, n, tmp_path):
    """The number is one of the argument, which a file keeps, also where it is 0."""
    x = np.random.default_rng(0).standard_normal((30, dimension))
    assert tiny(cls, n_steps=1).fit(x).network_.n_coordinate_features == n
    for given in None, 0, 2:
        model = tiny(cls, n_steps=1, n_coordinate_features=given).fit(x)
        model.save(path := tmp_path / f"{given}.npz")
        loaded = cls.load(path)
        assert loaded.n_coordinate_features == given
        assert loaded.network_.n_coordinate_features == (n if given is None else given)
        assert (loaded.eps_hat(x, 1) == model.eps_hat(x, 1)).all()


@both
def test_default_processes_are_linear_100_and_vp(cls):
    model = cls(hidden=(2,), n_steps=1, rng=0).fit(GAUSSIAN.sample(5, rng=0))
    if cls is DDPM:
        assert model.schedule_.variances.tobytes() == NoiseSchedule.linear(100).variances.tobytes()
    else:
        assert model.sde_ == VP()
