"""One network in two chapters: a fitted DDPM as a ScoreSDE, and a fitted ScoreSDE as a DDPM, (30)-(31)."""

import numpy as np

from scratchgen.models.ddpm import DDPM
from scratchgen.models.score_sde import ScoreSDE
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import VP, LinearSDE
from scratchgen.validation import Array


def to_sde(ddpm: DDPM, sde: LinearSDE | None = None, t_min: float | None = None) -> ScoreSDE:
    """A fitted ScoreSDE with the network of a fitted DDPM, (30) → (31): a time is its noise level to the network.

    Parameters
    ----------
    sde : LinearSDE, optional
        VP() if None, which `NoiseSchedule.linear` discretises.
    t_min : float, optional
        Where the process stops; the level of the first step if None, below which the network was not trained.

    Raises
    ------
    NotFittedError
        If the DDPM is not fitted.
    ValueError
        If `prediction` is none that a ScoreSDE knows ("v", "levels"), or the model has labels or clip_x0.
    """
    ddpm._require_fitted()
    if ddpm.prediction not in ("v", "levels") or ddpm.n_classes or ddpm.clip_x0:
        raise ValueError(
            "only a model of prediction 'v' or 'levels', without labels and clip_x0, has a score SDE, got "
            f"{ddpm.prediction!r}, n_classes={ddpm.n_classes}, clip_x0={ddpm.clip_x0}; train a ScoreSDE"
        )
    sde = VP() if sde is None else sde
    t_min = float(sde.time_at(np.log(ddpm.schedule_.snr[1]))) if t_min is None else t_min
    return ddpm.share_network_with(ScoreSDE(sde, t_min))


def to_ddpm(score_sde: ScoreSDE, T: int, variance: str | Array = "beta") -> DDPM:
    """A fitted DDPM of T steps with the network of a fitted ScoreSDE, (31) → (30).

    Its chain has the process's law at t = h, 2h, …, horizon, h = horizon/T, and its bound comes down to that of the
    ScoreSDE as T grows.

    Parameters
    ----------
    variance : {"beta", "posterior", "optimal"} or (T+1,) array
        σ_t² of the reverse steps, as for DDPM.

    Raises
    ------
    NotFittedError
        If the ScoreSDE is not fitted.
    ValueError
        If its process is not variance preserving: only such a process has a chain (30).
    """
    score_sde._require_fitted()
    return score_sde.share_network_with(DDPM(NoiseSchedule.from_sde(score_sde.sde_, T), variance))
