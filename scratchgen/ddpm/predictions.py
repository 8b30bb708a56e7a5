"""Quantities that a network may predict from x_t = ᾱ_t x_0 + β̄_t ε, with exact conversions between them.

    "noise"   ε, the total noise (Ho's ε_θ)
    "x0"      x_0, clean data
    "v"       v = ᾱ_t ε − β̄_t x_0  (Salimans and Ho 2022)
    "step"    E[ε_t | x_t] = (β_t/β̄_t) ε, the noise of one step: the deck's own ε_θ, (26)

Given x_t, each of the four is an affine function of ε.
"""

from typing import Any

import numpy as np

from scratchgen.ddpm.kernels import check_step_number, check_time, predict_x0
from scratchgen.nn import NO_LABEL, EpsCoefficients, GuidedNetwork, NoisePredictor, check_network
from scratchgen.schedule import NoiseSchedule
from scratchgen.validation import Array, IntArray, as_arrays, as_choice, as_labels, check_flag, column

PREDICTIONS = ("noise", "x0", "v", "step")


def eps_coefficients(schedule: NoiseSchedule, t: int | IntArray, kind: str) -> EpsCoefficients:
    """Coefficients (skip, gain) of ε̂ = skip · x_t + gain · prediction; numbers, or (N,) for t of shape (N,).

        noise: (0, 1);   x0: (1, −ᾱ_t)/β̄_t;   v: (β̄_t, ᾱ_t);   step: (0, β̄_t/β_t)

    Parameters
    ----------
    t : int or (N,) of int
        In 1..T.
    kind : {"noise", "x0", "v", "step"}

    Raises
    ------
    TypeError, ValueError
        If t is not a step, or kind is none of these names.
    """
    check_time(schedule, t)
    alpha_bar, beta_bar = schedule.alpha_bar[t], schedule.beta_bar[t]
    match as_choice(kind, "kind", PREDICTIONS):
        case "noise":
            return EpsCoefficients(0.0, 1.0)
        case "x0":
            return EpsCoefficients(1 / beta_bar, -alpha_bar / beta_bar)
        case "v":
            return EpsCoefficients(beta_bar, alpha_bar)
        case _:
            return EpsCoefficients(0.0, beta_bar / schedule.beta[t])


def prediction_to_eps(schedule: NoiseSchedule, t: int | IntArray, x_t: Array, prediction: Array, kind: str) -> Array:
    """Convert a prediction of some kind, (N, D), into ε̂, (N, D); t and kind as for `eps_coefficients`."""
    x_t, prediction = as_arrays("x_t (N, D), prediction (N, D)", x_t, prediction)
    skip, gain = (column(value, x_t) for value in eps_coefficients(schedule, t, kind))
    return skip * x_t + gain * prediction


def eps_to_prediction(schedule: NoiseSchedule, t: int | IntArray, x_t: Array, eps_hat: Array, kind: str) -> Array:
    """Convert ε̂, (N, D), into a prediction of some kind, (N, D): the inverse of `prediction_to_eps`."""
    x_t, eps_hat = as_arrays("x_t (N, D), eps_hat (N, D)", x_t, eps_hat)
    skip, gain = (column(value, x_t) for value in eps_coefficients(schedule, t, kind))
    return (eps_hat - skip * x_t) / gain


def predict_noise(
    network: NoisePredictor,
    schedule: NoiseSchedule,
    x_t: Array,
    t: int,
    labels: IntArray | None = None,
    guidance: float = 1.0,
    prediction: str | None = None,
    clip: bool = False,
    guidance_in: str = "eps",
) -> Array:
    """ε̂(x_t, t) of a network at the noise level of step t, (N, D).

    Parameters
    ----------
    network : NoiseNetwork or CategoricalDenoiser
    x_t : (N, D)
    t : int
        In 1..T.
    labels : (N,) of int, optional
        Classes y.  Classifier-free guidance then gives ε̂(x_t, t) + guidance · (ε̂(x_t, t, y) − ε̂(x_t, t)).
    guidance : float
        0 ignores the label, 1 gives the model of p(x | y), and larger values strengthen the dependence on y.  Ho and
        Salimans (2022) use w = guidance − 1.
    prediction : str, optional
        Quantity that a `NoiseNetwork` predicts, see `eps_coefficients`.  None for a `CategoricalDenoiser`, and for the
        default coefficients of a `NoiseNetwork`.
    clip : bool
        Clip x̂_0 to [−1, 1] and return the corresponding ε̂.
    guidance_in : {"eps", "logits"}
        As for `scratchgen.nn.GuidedNetwork`.

    Raises
    ------
    TypeError, ValueError
        If t is not a step, guidance is not a finite number, guidance is not 1 without labels, or guidance_in is
        "logits" for a network without them.
    ArithmeticError
        If guidance is so large that ε̂ is not finite.
    """
    check_network(network)
    check_step_number(schedule, t)
    check_flag(clip, "clip")
    x_t = as_arrays("x_t (N, D)", x_t)
    if prediction is not None:
        as_choice(prediction, "prediction", PREDICTIONS)
    if labels is not None:
        labels = as_labels(labels, len(x_t), np.iinfo(np.int64).max, first=NO_LABEL)
    scale, std = float(schedule.alpha_bar[t]), float(schedule.beta_bar[t])
    given: dict[str, Any] = {} if prediction is None else {"coefficients": eps_coefficients(schedule, t, prediction)}
    guide = GuidedNetwork(network, labels, guidance, guidance_in)
    eps_hat = network(x_t, scale, std, labels=labels, **given) if guidance == 1 else guide(x_t, scale, std, **given)
    if clip:
        eps_hat = (x_t - scale * np.clip(predict_x0(schedule, t, x_t, eps_hat), -1, 1)) / std
    return eps_hat
