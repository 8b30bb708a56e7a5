"""Training by score matching of every kind: one expectation, one gradient, what each costs in variance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchgen import Mixture, ScoreSDE
from scratchgen.diffusion import Levels
from scratchgen.grading import grade_noise
from scratchgen.noise_network import NoiseNetwork
from scratchgen.quadrature import sigma_points
from scratchgen.sde import explicit_score_matching, implicit_score_matching, sliced_score_matching
from scratchgen.sde.model import N_CELLS
from scratchgen.steps import STEP_CHOICES
from tests.strategies import residual

BIMODAL = Mixture([0.4, 0.6], [[-1.0], [1.2]], [[[0.1]], [[0.2]]])


class Says:
    """In place of a generator: the same directions whatever is asked."""

    def __init__(self, directions):
        self.directions = directions

    def choice(self, values, size):
        assert values == [-1.0, 1.0]
        return self.standard_normal(size)

    def standard_normal(self, size):
        assert size == self.directions.shape
        return self.directions


def grid_of_noise(D):
    """Trapezoid nodes (M, D) and weights of E over ε ~ N(0, I_D)."""
    axis = np.linspace(-8.5, 8.5, {1: 401, 2: 121}[D])  # features of a coordinate oscillate
    nodes = np.stack(np.meshgrid(*[axis] * D, indexing="ij"), axis=-1).reshape(-1, D)
    weights = np.exp(-0.5 * (nodes**2).sum(axis=1))
    return nodes, weights / weights.sum()


@st.composite
def problems(draw):
    """A network with random parameters, one clean point, a noise level, and every ε and v that an exact mean needs."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    D = draw(st.integers(1, 2))
    network = NoiseNetwork(D, (5, 4), n_coordinate_features=draw(st.integers(0, 1)), rng=rng, dtype=np.float64)
    network.mlp.parameters[:] = 0.5 * rng.standard_normal(len(network.mlp.parameters))
    return network, rng.standard_normal((1, D)), rng.uniform(0.3, 1), rng.uniform(0.1, 1)


def expected(problem, matching, directions="rademacher"):
    """Mean loss and mean gradient over ε and v, without chance."""
    network, x0, scale, std = problem
    D = x0.shape[1]
    noise, weights = grid_of_noise(D)
    signs = np.stack(np.meshgrid(*[[-1.0, 1.0]] * D), axis=-1).reshape(-1, D)
    v = signs if directions == "rademacher" else sigma_points(D)  # losses are quadratic in v
    noise, weights = np.repeat(noise, len(v), axis=0), np.repeat(weights / len(v), len(v))
    v = np.tile(v, (len(noise) // len(v), 1))
    level = Levels(np.full(len(noise), scale), np.full(len(noise), std))
    model = ScoreSDE(matching=matching, directions=directions)
    losses = model._differentiate(network, scale * x0 + std * noise, noise, level, weights, None, Says(v))
    return float(weights @ losses), network.mlp.gradient.copy()


@settings(max_examples=20)
@given(problems(), st.sampled_from(["rademacher", "gaussian"]))
def test_every_kind_of_matching_has_the_expectation_and_the_gradient_of_denoising(problem, directions):
    """Stein: E ε·ε̂ = std E div ε̂, given x_0.  Quadrature over ε, all signs or sigma points for v."""
    loss, gradient = expected(problem, "denoising")
    for matching in ("implicit", "sliced", "sliced-vr"):
        other, other_gradient = expected(problem, matching, directions)
        assert residual(other, loss) < 1e-11
        assert np.abs(other_gradient - gradient).max() < 1e-10 * (1 + np.abs(gradient).max())


@pytest.mark.parametrize("matching", ["implicit", "sliced", "sliced-vr"])
def test_losses_are_those_of_the_theory_in_units_of_the_noise(matching):
    """std² times the loss of s_θ = −ε̂/std, plus D."""
    rng = np.random.default_rng(0)
    network = NoiseNetwork(3, (6,), rng=rng, dtype=np.float64)
    network.mlp.parameters[:] = rng.standard_normal(len(network.mlp.parameters))
    x_t, v, std = rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), rng.uniform(0.2, 1, 4)
    level = Levels(np.sqrt(1 - std**2), std)
    model = ScoreSDE(matching=matching, directions="gaussian")
    losses = model._differentiate(network, x_t, x_t, level, np.full(4, 0.25), None, Says(v))
    column = std[:, None]
    score = -network(x_t, *level[:2]) / column
    if matching == "implicit":
        partial = [network.forward_along(x_t, np.tile(e, (4, 1)), *level[:2])[1] @ e for e in np.eye(3)]
        theory = implicit_score_matching(score, -sum(partial) / std)
    else:
        derivative = -network.forward_along(x_t, v, *level[:2])[1] / column
        theory = sliced_score_matching(score, v, derivative, reduce_variance=matching == "sliced-vr")
    assert residual(losses, std**2 * theory + 3) < 1e-13


def test_reducing_the_variance_does_where_the_score_is_large():
    """The mean over v stays, E(v·s)² = ‖s‖² for unit covariance; Gaussian v vary more than signs.

    Where the score is small it need not: (v·s)² and the derivative can cancel.
    """
    rng = np.random.default_rng(0)
    score, jacobian = 3 * rng.standard_normal((1, 4)), rng.standard_normal((4, 4))
    n, spread = 100_000, {}
    for law, v in (("gaussian", rng.standard_normal((n, 4))), ("signs", rng.choice([-1.0, 1.0], (n, 4)))):
        for reduce_variance in (False, True):
            losses = sliced_score_matching(np.tile(score, (n, 1)), v, v @ jacobian.T, reduce_variance)
            spread[law, reduce_variance] = losses.std()
            exact = float((score**2).sum() + 2 * np.trace(jacobian))
            assert abs(losses.mean() - exact) < 6 * losses.std() / n**0.5
    # Var v·(J v) is Σ_{i≠j} of the symmetric part for signs, and 2‖·‖² with its diagonal for Gaussians
    symmetric = jacobian + jacobian.T
    off = symmetric - np.diag(np.diagonal(symmetric))
    assert abs(spread["signs", True] / (2 * (off**2).sum()) ** 0.5 - 1) < 0.02
    assert abs(spread["gaussian", True] / (2 * (symmetric**2).sum()) ** 0.5 - 1) < 0.02
    assert spread["signs", True] < spread["signs", False] < spread["gaussian", False]


def test_implicit_matching_needs_a_density_that_vanishes_at_its_ends():
    """Uniform on [0, 1], whose score is 0, and s_θ = x: 1/3 explicitly, and 2 more by a wrong partial integration."""
    x, weights = np.polynomial.legendre.leggauss(5)
    x, weights = 0.5 * (x[:, None] + 1), 0.5 * weights
    assert weights @ explicit_score_matching(x, 0 * x) == pytest.approx(1 / 3, rel=1e-14)
    assert weights @ implicit_score_matching(x, np.ones(5)) == pytest.approx(1 / 3 + 2, rel=1e-14)


@pytest.mark.parametrize("matching", ["implicit", "sliced", "sliced-vr"])
def test_training_without_the_noise_learns_the_score(matching):
    """Excess over the Bayes loss, by quadrature, at three noise levels; untrained, .05 and .27 at two."""
    x = BIMODAL.sample(5000, rng=0)
    parameters = {"hidden": (32, 32), "matching": matching, "directions": "gaussian"}
    parameters |= {"standardize": False, "t_min": 0.01, "rng": 0}
    model = ScoreSDE(n_steps=1500, **parameters).fit(x)
    untrained = ScoreSDE(n_steps=1, **parameters).fit(x)

    def excess(fitted):
        levels = [fitted.sde_.level(t) for t in (0.1, 0.3, 0.6)]
        times = zip((0.1, 0.3, 0.6), levels, strict=True)
        return [grade_noise(BIMODAL, lambda p, t=t: fitted.eps_hat(p, t), *level).excess for t, level in times]

    assert max(excess(model)) < 0.02
    assert min(excess(untrained)[:2]) > 0.04


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"matching": "explicit"}, "matching must be"),
        ({"directions": "unit"}, "directions must be"),
        ({"matching": "sliced", "prediction": "levels", "n_levels": 3}, "matching must be 'denoising'"),
    ],
)
def test_choices_that_are_none_are_refused_before_training(parameters, words):
    with pytest.raises(ValueError, match=words):
        ScoreSDE(n_steps=1, **parameters).fit(np.eye(3))


# --- which times ------------------------------------------------------------------------------------------


def test_every_choice_of_times_has_the_same_expectation():
    """E weight · f(u) = ∫f over the clock; importance draws follow what was seen, and without weights would not do."""
    rng = np.random.default_rng(0)
    for choice in STEP_CHOICES:
        model = ScoreSDE(time_choice=choice)
        model._build(1, rng)
        if choice == "importance":
            for cell in range(1, N_CELLS + 1):
                model._chooser.observe(np.full(10, cell), np.full(10, 1.0 + 9 * (cell > 90)))
        batches = [model._draw_clock(256, rng) for _ in range(2000)]
        plain, weighted = np.array([[(u**2).mean(), (u**2 * weight).mean()] for u, weight in batches]).T
        error = weighted.std() / len(batches) ** 0.5
        assert abs(weighted.mean() - 1 / 3) < 6 * error
        assert (abs(plain.mean() - 1 / 3) > 100 * error) == (choice == "importance")
        assert all(((u >= 0) & (u <= 1)).all() for u, _ in batches)


def test_importance_spends_its_draws_where_the_loss_varies():
    """What it has learned when training ends is √E[loss²] of the network, as well as ten recent losses a cell tell."""
    model = ScoreSDE(time_choice="importance", hidden=(32,), n_steps=1500, standardize=False, rng=0)
    model.fit(BIMODAL.sample(2000, rng=0))
    rng, second = np.random.default_rng(1), np.zeros(N_CELLS)
    x0 = BIMODAL.sample(4000, rng)
    for cell in range(N_CELLS):
        scale, std = model.sde_.level(float(model._time_at_clock((cell + 0.5) / N_CELLS)))
        noise = rng.standard_normal(x0.shape)
        second[cell] = (((noise - model.network_(scale * x0 + std * noise, scale, std)) ** 2).sum(axis=1) ** 2).mean()
    best = np.sqrt(second) / np.sqrt(second).sum()
    learned = (model._chooser.probabilities[1:] - 0.1 / N_CELLS) / 0.9
    assert np.corrcoef(best, learned)[0, 1] > 0.75
    even = np.full(N_CELLS, 1 / N_CELLS)
    assert np.abs(learned - best).sum() < 0.6 * np.abs(even - best).sum()
