"""A fitted DDPM as a ScoreSDE with the same network, and a fitted ScoreSDE as a DDPM: (30)-(31)."""

import numpy as np

from scratchgen.models.ddpm import DDPM, ESTIMATED
from scratchgen.models.score_sde import ScoreSDE
from scratchgen.schedule import NoiseSchedule
from scratchgen.sde import VP, LinearSDE
from scratchgen.sde.processes import as_time, check_process
from scratchgen.validation import Array


def to_sde(ddpm: DDPM, sde: LinearSDE | None = None, t_min: float | None = None) -> ScoreSDE:
    """Return a fitted ScoreSDE with the network of a fitted DDPM, (30) → (31).

    The network depends on a time through its noise level only.

    Parameters
    ----------
    ddpm : DDPM
        Fitted, with prediction "v" or "levels".
    sde : LinearSDE, optional
        Process of the ScoreSDE; VP() if None, whose discretisation is `NoiseSchedule.linear`.
    t_min : float, optional
        Last time of the reverse process.  If None, the time with the noise level of step 1; the network was not trained
        on smaller noise.

    Raises
    ------
    NotFittedError
        If the DDPM is not fitted.
    ValueError
        If `prediction` is not "v" or "levels", or the model has clip_x0.
    """
    if not isinstance(ddpm, DDPM):
        raise TypeError(f"ddpm must be a DDPM, got {ddpm!r:.60}; pass a fitted model")
    schedule = ddpm.schedule_
    prediction, clip_x0 = (ddpm._params_of_fit[name] for name in ("prediction", "clip_x0"))
    if prediction not in ("v", "levels") or clip_x0:
        raise ValueError(
            f"ddpm must have prediction 'v' or 'levels' and no clip_x0, got prediction={prediction!r}, "
            f"clip_x0={clip_x0}; train a ScoreSDE"
        )
    sde = VP() if sde is None else sde
    check_process(sde)
    t_min = (
        float(sde.time_at(np.log(schedule.snr[1]))) if t_min is None else as_time(sde, t_min, "t_min", open_low=True)
    )
    return ddpm.share_network_with(ScoreSDE(sde, t_min))


def to_ddpm(score_sde: ScoreSDE, T: int, variance: str | Array = "beta") -> DDPM:
    """Return a fitted DDPM of T steps with the network of a fitted ScoreSDE, (31) → (30).

    The forward chain has the law of the process at the times h, 2h, …, horizon with h = horizon/T.  As T grows, the
    bound of the DDPM falls to the bound of the ScoreSDE.

    Parameters
    ----------
    score_sde : ScoreSDE
        Fitted, on a VP process.
    T : int
        Number of steps.
    variance : {"beta", "posterior", "law", "mixture"} or (T+1,) array
        σ_t² of the reverse steps, as for DDPM.  "law" and "mixture" need a ScoreSDE with prediction="levels".

    Raises
    ------
    NotFittedError
        If the ScoreSDE is not fitted.
    ValueError
        If the process is not variance preserving; other processes have no chain (30).
    """
    if not isinstance(score_sde, ScoreSDE):
        raise TypeError(f"score_sde must be a ScoreSDE, got {score_sde!r:.60}; pass a fitted model")
    if isinstance(variance, str) and variance in ESTIMATED:
        raise ValueError(f"variance must not be {variance!r}, which is estimated when a DDPM is trained; pass 'beta'")
    return score_sde.share_network_with(DDPM(NoiseSchedule.from_sde(score_sde.sde_, T), variance))
