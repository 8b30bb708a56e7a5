"""Units of models that standardise: sums over many float32 rows far from 0 keep their digits."""

import numpy as np
import pytest

from scratchgen import DDPM, VAE, LinearVAE, ScoreSDE


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "model",
    [VAE(1, (2,), n_steps=1), LinearVAE(1, n_steps=1), DDPM(hidden=(2,), n_steps=1), ScoreSDE(hidden=(2,), n_steps=1)],
    ids=lambda model: type(model).__name__,
)
def test_mean_and_scale_of_float32_rows_are_those_of_float64(model, order):
    """300,000 rows near 1000 with deviation 1: a float32 sum over the rows has an error of 0.8 in the mean."""
    rng = np.random.default_rng(0)
    x = np.asarray((1000 + rng.standard_normal((300_000, 2)) * [1.0, 0.3]).astype(np.float32), order=order)
    if order == "C":
        assert np.abs(x.mean(axis=0) - x.mean(axis=0, dtype=np.float64)).max() > 0.1  # the error of a float32 sum
    fits = [type(model)(**model.get_params() | {"rng": 0}).fit(data) for data in (x, x.astype(np.float64))]
    exact = x.mean(axis=0, dtype=np.float64)
    single, double = fits
    assert np.abs(single.mean_ - exact).max() < 1e-9
    assert np.abs(single.mean_ - double.mean_).max() < 1e-9
    assert np.abs(np.divide(single.scale_, double.scale_) - 1).max() < 1e-6
