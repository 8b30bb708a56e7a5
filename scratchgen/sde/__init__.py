"""Equations (30)-(34): score-based models and stochastic differential equations.

`processes` has the forward SDEs, `reverse` their reversal, `likelihood` what (34) bounds, `model` the estimator.
"""

from scratchgen.sde.likelihood import kl_bound, probability_flow_log_prob
from scratchgen.sde.processes import VE, VP, LinearSDE, SubVP
from scratchgen.sde.reverse import euler_maruyama, euler_std, euler_step, reverse_drift, reverse_times

__all__ = [
    "VE",
    "VP",
    "LinearSDE",
    "SubVP",
    "euler_maruyama",
    "euler_std",
    "euler_step",
    "kl_bound",
    "probability_flow_log_prob",
    "reverse_drift",
    "reverse_times",
]
