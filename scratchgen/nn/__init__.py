"""Neural networks with hand-written derivatives, and the optimiser.

`y, backward = network.vjp(x)` returns the output and a function that computes the gradient of a loss from ∂loss/∂y.

* `mlp`: the multilayer perceptron; `activations`: its activations.
* `noise_network`, `categorical_denoiser`: networks that predict noise; `features`: their inputs.
* `adam`: the optimiser, the moving average and the learning-rate schedule.
"""

from scratchgen.nn.adam import EMA, Adam, cosine_decay, finite_loss
from scratchgen.nn.categorical_denoiser import CategoricalDenoiser
from scratchgen.nn.features import NO_LABEL, coordinate_features, time_features
from scratchgen.nn.mlp import MLP
from scratchgen.nn.noise_network import EpsCoefficients, NoiseNetwork

NoisePredictor = NoiseNetwork | CategoricalDenoiser

__all__ = [
    "EMA",
    "MLP",
    "NO_LABEL",
    "Adam",
    "CategoricalDenoiser",
    "EpsCoefficients",
    "NoiseNetwork",
    "NoisePredictor",
    "coordinate_features",
    "cosine_decay",
    "finite_loss",
    "time_features",
]
