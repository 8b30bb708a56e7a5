"""Neural networks with hand-written derivatives, and the optimiser.

`y, backward = network.vjp(x)` returns the output and a function that computes the gradient of a loss from ∂loss/∂y.

* `mlp`: the multilayer perceptron; `activations`: its activations; `flat`: its parameters as one vector.
* `residual`: a perceptron of residual blocks; `picture_network`: a network shared over pixels; `networks`: all by name.
* `noise_network`, `categorical_denoiser`: networks that predict noise; `features`: their inputs.
* `labels`, `guidance`: dropped labels, and the prediction of a network for given labels.
* `adam`: the optimiser, the moving average and the learning-rate schedule.
"""

from scratchgen.nn.adam import EMA, Adam, check_adam, check_average, check_loop, check_step, check_update, cosine_decay
from scratchgen.nn.categorical_denoiser import CategoricalDenoiser
from scratchgen.nn.features import NO_LABEL, coordinate_features, time_features
from scratchgen.nn.guidance import GUIDED, GuidedNetwork
from scratchgen.nn.labels import drop_labels, guided
from scratchgen.nn.mlp import MLP, n_parameters
from scratchgen.nn.noise_network import EpsCoefficients, NoiseLevels, NoiseNetwork
from scratchgen.nn.residual import ResidualMLP

NoisePredictor = NoiseNetwork | CategoricalDenoiser  # which training calls
AnyPredictor = NoisePredictor | GuidedNetwork  # which sampling and bounds call


def check_network(network: object) -> None:
    """Raise TypeError unless network can be called as a NoiseNetwork."""
    if isinstance(network, type | MLP) or not (callable(network) or hasattr(network, "vjp")):
        raise TypeError(
            f"network must be a NoiseNetwork or a CategoricalDenoiser, got {network!r:.60}; pass an instance"
        )


__all__ = [
    "EMA",
    "GUIDED",
    "MLP",
    "NO_LABEL",
    "Adam",
    "AnyPredictor",
    "CategoricalDenoiser",
    "EpsCoefficients",
    "GuidedNetwork",
    "NoiseLevels",
    "NoiseNetwork",
    "NoisePredictor",
    "ResidualMLP",
    "check_adam",
    "check_average",
    "check_loop",
    "check_network",
    "check_step",
    "check_update",
    "coordinate_features",
    "cosine_decay",
    "drop_labels",
    "guided",
    "n_parameters",
    "time_features",
]
