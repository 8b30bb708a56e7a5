"""Equations (30)-(34): score-based models and stochastic differential equations.

    dx = [f(t) x − g(t)² ∇ log p_t(x)] dt + g(t) dw,   from the last time down to 0,  (32)

The model: the chain of the DDPM with infinitely small steps is an SDE, (30)-(31), and its reverse, (32), needs one
unknown function, the score ∇ log p_t.
Minimised: the squared error of a learned score over states and times, (33).  The score of q(x_t | x_0), −ε/std, as
target has the same minimiser: denoising score matching.
Exact: the law of x_t given x_0; and, with weights g², (33) bounds the KL from the data to the samples, (34), with
equality if the learned score is that of some diffused law.  For mixtures both sides are computed.
Lost: the steps of a sampler.  (34) holds for the SDE in the limit of small steps, and not for the probability flow.

* `processes`: the forward SDEs, (31).
* `matching`: the losses of (33), and the score of a network; `training`: training times and the training loop.
* `reverse`: the reverse SDE, (32), and Euler-Maruyama steps; `flow`: the probability-flow ODE and its likelihood.
* `exponential`: steps of higher order for both, the default of `ScoreSDE.sample`.
* `bound`: (34), and the terms of the continuous-time bound.
* `paths`, `edm`, `information`: flow matching, EDM's parameters and I-MMSE, beyond the deck.

Read `processes` and `training` first, then `reverse`.
"""

from scratchgen.sde.bound import diffusion_loss, kl_bound, prior_loss, reconstruction_loss, sde_log_prob_bound
from scratchgen.sde.edm import EDMCoefficients, denoiser_to_score, edm_coefficients, edm_sigmas
from scratchgen.sde.exponential import exponential_sampler, exponential_step, log_ratio_step
from scratchgen.sde.flow import flow_map, heun, probability_flow_log_prob
from scratchgen.sde.information import kl_rate, mutual_information, tilted_score, tweedie_covariance
from scratchgen.sde.matching import (
    denoising_error,
    denoising_score_matching,
    explicit_score_matching,
    implicit_score_matching,
    predict_score,
    predict_x0,
    score_and_divergence,
    sliced_error,
    sliced_score_matching,
)
from scratchgen.sde.paths import flow_velocity, path_coefficients
from scratchgen.sde.processes import VE, VP, LinearSDE, SubVP
from scratchgen.sde.reverse import (
    Score,
    euler_maruyama,
    euler_std,
    euler_step,
    langevin_step,
    reverse_drift,
    reverse_moments,
    reverse_times,
    sinh_times,
)
from scratchgen.sde.training import (
    DIRECTIONS,
    MATCHINGS,
    WEIGHTINGS,
    TimeSampler,
    draw_directions,
    score_step,
    sliced_step,
    train,
)

__all__ = [
    "DIRECTIONS",
    "MATCHINGS",
    "VE",
    "VP",
    "WEIGHTINGS",
    "EDMCoefficients",
    "LinearSDE",
    "Score",
    "SubVP",
    "TimeSampler",
    "denoiser_to_score",
    "denoising_error",
    "denoising_score_matching",
    "diffusion_loss",
    "draw_directions",
    "edm_coefficients",
    "edm_sigmas",
    "euler_maruyama",
    "euler_std",
    "euler_step",
    "explicit_score_matching",
    "exponential_sampler",
    "exponential_step",
    "flow_map",
    "flow_velocity",
    "heun",
    "implicit_score_matching",
    "kl_bound",
    "kl_rate",
    "langevin_step",
    "log_ratio_step",
    "mutual_information",
    "path_coefficients",
    "predict_score",
    "predict_x0",
    "prior_loss",
    "probability_flow_log_prob",
    "reconstruction_loss",
    "reverse_drift",
    "reverse_moments",
    "reverse_times",
    "score_and_divergence",
    "score_step",
    "sde_log_prob_bound",
    "sinh_times",
    "sliced_error",
    "sliced_score_matching",
    "sliced_step",
    "tilted_score",
    "train",
    "tweedie_covariance",
]
