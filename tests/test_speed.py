"""A step of training against its own matrix products, in one interleaved run: a ratio, which no other load moves much.

The limits are twice what was measured (`benchmarks/RESULTS.md`), so that only a pass too many over large arrays, or a
promotion to float64, is caught.
"""

import pytest
from threadpoolctl import threadpool_limits

from benchmarks.timing import LIMIT, time_case
from benchmarks.training import case, ddpm_problem, mlp_problem


@pytest.mark.parametrize(
    ("problem", "limit"),
    [
        (mlp_problem((66, 64, 64, 64, 2), 64, 100), 6.0),  # measured 3.0
        (mlp_problem((66, 256, 256, 256, 2), 256, 10), 3.0),  # 1.5
        (ddpm_problem(64, 256, 256, 10), 3.2),  # 1.6
    ],
    ids=["MLP, 64", "MLP, 256", "DDPM, 256"],
)
def test_a_step_takes_not_much_longer_than_its_products(problem, limit, monkeypatch):
    monkeypatch.setattr("benchmarks.training.PEERS", {})  # ours alone, whatever is installed
    with threadpool_limits(1, user_api="blas"):
        timing = time_case(case("a step", problem), rounds=9)
    ratio = min(timing.seconds["scratchgen"]) / min(timing.seconds[LIMIT])
    assert 1 < ratio < limit
