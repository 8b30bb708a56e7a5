"""The time of a step over that of its own matrix products, in one interleaved run; load moves a ratio less than a time.

The limits over products are twice the measured ratios, so that only one pass too many over large arrays, or a promotion
to float64, fails a test.  Those over bare steps are 1.2 times the largest ratio, and hold what a step does besides.
"""

from functools import partial

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from benchmarks import sampling
from benchmarks.timing import LIMIT, Case, time_case
from benchmarks.training import case, ddpm_problem, mlp_problem
from scratchgen import DDPM
from scratchgen.nn import Adam, NoiseNetwork


def over_its_products(case: Case) -> float:
    """Least time of the work over least time of the limit, of our side only."""
    ours = Case(case.name, {"scratchgen": case.sides["scratchgen"]}, dict, 0.0, case.units, case.limit)
    with threadpool_limits(1, user_api="blas"):
        timing = time_case(ours, rounds=9)
    return min(timing.seconds["scratchgen"]) / min(timing.seconds[LIMIT])


@pytest.mark.parametrize(
    ("problem", "limit"),
    [
        (mlp_problem((66, 64, 64, 64, 2), 64, 100), 6.0),  # measured 2.7, and 2.3 without AVX-512
        (mlp_problem((66, 256, 256, 256, 2), 256, 10), 3.0),  # 1.5
        (ddpm_problem(64, 256, 256, 10), 3.2),  # 1.6
    ],
    ids=["MLP, 64", "MLP, 256", "DDPM, 256"],
)
def test_a_step_of_training_takes_not_much_longer_than_its_products(problem, limit):
    assert 1 < over_its_products(case("a step", problem)) < limit


@pytest.mark.parametrize(("size", "limit"), [((2, 128, 1000), 4.4), ((64, 256, 500), 3.2)], ids=["2-D", "64-D"])
def test_a_step_of_sampling_takes_not_much_longer_than_its_products(size, limit):
    assert 1 < over_its_products(sampling.case("DDIM", *size)) < limit


def bare_steps(width: int, batch: int, n_steps: int) -> None:
    """Forward and backward pass of the network of a DDPM in two dimensions, and Adam, on inputs at hand."""
    network, rng = NoiseNetwork(2, (width,) * 3, rng=0), np.random.default_rng(0)
    adam = Adam(network.parameters)
    inputs, noise = (rng.standard_normal((batch, n), dtype=np.float32) for n in (network.mlp.sizes[0], 2))
    for _ in range(n_steps):
        y, backward = network.mlp.vjp(inputs)
        backward((2 / batch) * (y - noise))
        adam.step(network.gradient)


@pytest.mark.parametrize(
    ("width", "batch", "n_steps", "limit"),
    [
        (64, 128, 200, 2.3),  # measured 1.64 to 1.94
        (128, 256, 60, 1.7),  # 1.28 to 1.41
    ],
    ids=["64", "128"],
)
def test_a_fit_takes_not_much_longer_than_its_bare_steps(width, batch, n_steps, limit):
    """Batches, noise, steps t, inputs of the network, checks, the moving average and the state of training."""
    x = np.random.default_rng(1).standard_normal((500, 2))
    model = DDPM(hidden=(width,) * 3, batch_size=batch, n_steps=n_steps, rng=0)
    steps = partial(bare_steps, width, batch, n_steps)
    fit = Case("fit", {"fit": lambda: partial(model.fit, x)}, dict, 0.0, n_steps, steps)
    with threadpool_limits(1, user_api="blas"):
        seconds = time_case(fit, rounds=7).seconds
    assert 1 < min(seconds["fit"]) / min(seconds[LIMIT]) < limit
