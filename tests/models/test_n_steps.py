"""The default number of steps, which follows the number of rows."""

import numpy as np
import pytest

from scratchgen import DDPM, VAE, LinearVAE, ScoreSDE
from scratchgen.models.convert import to_ddpm

X = np.random.default_rng(0).standard_normal((30, 2))
NETWORKS = pytest.mark.parametrize("cls", [VAE, DDPM, ScoreSDE])


@NETWORKS
def test_none_takes_four_steps_a_row_between_100_and_5000(cls):
    right = {1: 100, 25: 100, 26: 104, 1249: 4996, 1250: 5000, 10**6: 5000}
    assert {n: cls()._planned_steps(n) for n in right} == right
    assert cls(n_steps=np.int64(3))._planned_steps(10**6) == 3
    assert LinearVAE()._planned_steps(10) == 3000


@NETWORKS
def test_a_training_of_the_default_length_stops_and_resumes_as_any_other(cls, tmp_path):
    """3 of 30 rows are held out, so that 27 count."""
    whole, cut = (cls(hidden=(3,), early_stopping=True, n_iter_no_change=99, rng=0) for _ in range(2))
    assert len(whole.fit(X).losses_) == whole.n_steps_ == 4 * 27
    assert whole.validation_steps_.tolist() == [*range(6, 109, 6)]
    for progress in cut.train(X):
        assert progress.n_steps == 108
        if progress.step == 50:
            break
    cut.save(tmp_path / "cut.npz")
    again = cls.load(tmp_path / "cut.npz")
    assert (again.n_steps, again.n_steps_, len(again.losses_)) == (None, 108, 50)
    again.resume(X).save(tmp_path / "end.npz")
    whole.save(tmp_path / "whole.npz")
    assert (tmp_path / "end.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_a_model_with_the_network_of_another_has_its_number_of_steps(tmp_path):
    ddpm = to_ddpm(ScoreSDE(hidden=(3,), n_steps=2, rng=0).fit(X), 4)
    assert (ddpm.n_steps, ddpm.n_steps_, len(ddpm.losses_)) == (2, 2, 2)
    ddpm.save(tmp_path / "ddpm.npz")
    assert DDPM.load(tmp_path / "ddpm.npz").n_steps_ == 2
