"""Equations (30)-(34): score-based models and stochastic differential equations.

`processes` has the forward SDEs, `reverse` their reversal, `flow` its deterministic twin, `corrector` Langevin steps
in between, `matching` the losses of (33), `likelihood` what (34) bounds, `integration` what solves an ODE, `model` the
estimator.
"""

from scratchgen.sde.corrector import langevin_step, predictor_corrector
from scratchgen.sde.flow import flow_map, heun
from scratchgen.sde.integration import integrate
from scratchgen.sde.likelihood import kl_bound, probability_flow_log_prob, sde_log_prob_bound
from scratchgen.sde.matching import (
    denoising_score_matching,
    explicit_score_matching,
    implicit_score_matching,
    sliced_score_matching,
)
from scratchgen.sde.processes import VE, VP, LinearSDE, SubVP
from scratchgen.sde.reverse import euler_maruyama, euler_std, euler_step, reverse_drift, reverse_moments, reverse_times

__all__ = [
    "VE",
    "VP",
    "LinearSDE",
    "SubVP",
    "denoising_score_matching",
    "euler_maruyama",
    "euler_std",
    "euler_step",
    "explicit_score_matching",
    "flow_map",
    "heun",
    "implicit_score_matching",
    "integrate",
    "kl_bound",
    "langevin_step",
    "predictor_corrector",
    "probability_flow_log_prob",
    "reverse_drift",
    "reverse_moments",
    "reverse_times",
    "sde_log_prob_bound",
    "sliced_score_matching",
]
