"""Wing one: mistakes in networks and their derivatives."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from scratchgen.fast.silu import silu_and_slope
from scratchgen.museum.exhibit import exhibit
from scratchgen.nn import MLP, CategoricalDenoiser, NoiseNetwork
from scratchgen.nn.activations import ACTIVATIONS, sigmoid, silu

# --- the multilayer perceptron ---------------------------------------------------------------------------------------


@exhibit("the last layer has an activation", "mutation audit", "nn.MLP.__call__", "check_mlp")
def _activated_output(self, x, constant=None):
    return ACTIVATIONS[self.activation].value(MLP.__call__(self, x, constant) + 1)


@exhibit("gradients accumulate over calls", "mutation audit", "nn.MLP.vjp", "check_gradient")
def _accumulated_gradient(self, x):
    y, backward = MLP.vjp(self, x)

    def add_up(grad, inputs=False):
        before = self.gradient.copy()
        by_x = backward(grad, inputs)
        self.gradient += before
        return by_x

    return y, add_up


@exhibit("the derivative of the activation is left out", "mutation audit", "nn.MLP.vjp", "check_gradient")
def _without_slopes(self, x):
    entering, h = [], x
    for weight, bias in zip(self.weights, self.biases, strict=True):
        entering.append(h)
        z = h @ weight + bias
        h = ACTIVATIONS[self.activation].value(z.copy()) if weight is not self.weights[-1] else z

    def backward(grad, inputs=False):
        for i in reversed(range(len(self.weights))):
            self._weight_gradients[i][:] = entering[i].T @ grad
            self._bias_gradients[i][:] = grad.sum(axis=0)
            grad = grad @ self.weights[i].T
        return grad

    return h, backward


@exhibit("a directional derivative ignores the length of the direction", "mutation audit", "nn.MLP.jvp", "check_jvp")
def _unit_direction(self, x, direction):
    return MLP.jvp(self, x, direction / np.linalg.norm(direction, axis=1, keepdims=True))


@exhibit(
    "the derivative of SiLU is the sigmoid alone", "mutation audit", "fast.silu.silu_and_slope", "check_activation"
)
def _sigmoid_for_slope(z):
    slope = sigmoid(z)
    return silu_and_slope(z)[0], slope


@exhibit("a rectifier for SiLU", "mutation audit", "nn.activations.silu", "check_activation")
def _rectifier(z):
    return np.maximum(z, 0), silu(z)[1]


# --- noise networks --------------------------------------------------------------------------------------------------


@exhibit("the label is dropped for all", "mutation audit", "nn.NoiseNetwork.__call__", "check_noise_network")
def _without_labels(self, x, scale, std, coefficients=None, labels=None):
    return NoiseNetwork.__call__(self, x, scale, std, coefficients)


@exhibit("the coefficients are dropped in training", "mutation audit", "nn.NoiseNetwork.vjp", "check_loss_gradient")
def _without_coefficients(self, x, scale, std, coefficients=None, labels=None):
    return NoiseNetwork.vjp(self, x, scale, std, None, labels)


@exhibit(
    "the derivative with respect to x_t/r is returned for x_t",
    "mutation audit",
    "nn.NoiseNetwork.vjp",
    "check_loss_gradient",
)
def _by_scaled_input(self, x, scale, std, coefficients=None, labels=None):
    eps_hat, backward = NoiseNetwork.vjp(self, x, scale, std, coefficients, labels)

    def longer(grad, inputs=False):
        by_x = backward(grad, inputs)
        return None if by_x is None else np.hypot(scale, std)[:, None] * by_x

    return eps_hat, longer


@exhibit("the skip connection has no derivative", "mutation audit", "nn.NoiseNetwork.jvp", "check_jvp")
def _without_skip(self, x, direction, scale, std, coefficients=None, labels=None):
    eps_hat, derivative, backward = NoiseNetwork.jvp(self, x, direction, scale, std, coefficients, labels)
    skip = std / (scale**2 + std**2) if coefficients is None else coefficients.skip
    return eps_hat, derivative - skip[:, None] * direction, backward


@exhibit(
    "the label is dropped in P(x₀ | x_t)",
    "mutation audit",
    "nn.CategoricalDenoiser.law",
    "check_categorical_denoiser",
)
def _law_without_labels(self, x, scale, std, labels=None, guidance=1.0):
    return CategoricalDenoiser.law(self, x, scale, std)


@exhibit(
    "the mass of x₀ is averaged over the dimensions",
    "mutation audit",
    "nn.CategoricalDenoiser.log_mass",
    "check_categorical_denoiser",
)
def _mean_mass(self, level, x, scale, std, labels=None):
    return CategoricalDenoiser.log_mass(self, level, x, scale, std, labels) / x.shape[1]


@exhibit("levels are drawn in falling order", "mutation audit", "nn.CategoricalDenoiser.draw", "check_categorical_draw")
def _falling_levels(self, rng, x, scale, std, labels=None):
    steps = self.law(x, scale, std, labels).cumsum(axis=2)[:, :, :-1]
    return (rng.random(x.shape)[:, :, None] < steps).sum(axis=2)


@exhibit("the derivative of ε̂ has the wrong sign", "mutation audit", "nn.CategoricalDenoiser.vjp", "check_gradient")
def _positive_derivative(self, x, scale, std, labels=None):
    eps_hat, backward = CategoricalDenoiser.vjp(self, x, scale, std, labels)

    def negated(grad, inputs=False):
        by_x = backward(grad, inputs)
        self.gradient *= -1
        return by_x

    return eps_hat, negated
