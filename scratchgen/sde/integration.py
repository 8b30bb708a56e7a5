"""One adaptive integrator of high order for everything that is an ODE: flows, their likelihoods, moments."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scratchgen.validation import Array, as_number


def integrate(
    slope: Callable[[float, Array], Array],
    t: float,
    s: float,
    start: Array,
    rtol: float,
    atol: float,
    what: str,
    cure: str,
) -> Array:
    """The solution at s of d state/dt = slope(t, state) from `start` at t, by DOP853.

    Raises
    ------
    ArithmeticError
        If the slope is not finite at the start, or the integrator gives up; it names `what` and the `cure`.
    """
    from scipy.integrate import solve_ivp  # 0.4 s to import, so only where it is used

    as_number(rtol, "rtol", low=0.0, open_low=True)
    if not np.isfinite(slope(t, start)).all():  # solve_ivp would choose a step of NaN, and never end
        raise ArithmeticError(f"{what} could not be integrated: the score is not finite at t = {t:g}; {cure}")
    solution = solve_ivp(slope, (t, s), start, method="DOP853", rtol=rtol, atol=atol)
    if not solution.success:
        raise ArithmeticError(f"{what} could not be integrated: {solution.message}; {cure}")
    return solution.y[:, -1]
