"""The problems of the rows about networks and the optimiser."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from scratchgen.conformance import (
    Check,
    check_activation,
    check_adam,
    check_categorical_denoiser,
    check_categorical_draw,
    check_gradient,
    check_jvp,
    check_learning_rate,
    check_loss_gradient,
    check_mlp,
    check_moving_average,
    check_noise_network,
)
from scratchgen.conformance.networks import Layers, printed_law, printed_mlp
from scratchgen.equations.problems import Functions, GivenUniform, waves
from scratchgen.equations.row import both
from scratchgen.likelihood import softmax
from scratchgen.nn import MLP, NO_LABEL, CategoricalDenoiser, EpsCoefficients, NoiseNetwork
from scratchgen.quadrature import central_difference
from scratchgen.validation import Array

PLANAR = 1.5 * waves(5, 2)
LABELS = np.array([0, 1, NO_LABEL, 1, 0])
INDICATORS = (LABELS[:, None] == np.arange(2)).astype(np.float64)
SCALE, STD = np.array([0.9, 0.7, 0.4, 0.95, 0.6]), np.array([0.3, 0.7, 0.8, 0.2, 0.6])  # noise levels of five examples


def layers_of(parameters: Array, sizes: tuple[int, ...]) -> Layers:
    """The matrices and biases of a flat vector of parameters, layer by layer, weights first."""
    layers, start = [], 0
    for m, n in pairwise(sizes):
        layers.append(
            (parameters[start : start + m * n].reshape(m, n), parameters[start + m * n : start + (m + 1) * n])
        )
        start += (m + 1) * n
    return layers


def mlp_by_hand(parameters: Array, sizes: tuple[int, ...], activation: str = "silu") -> Callable[[Array], Array]:
    """The function of a multilayer perceptron with these parameters, from the formulas of its layers."""
    layers = layers_of(parameters, sizes)
    return lambda x: printed_mlp(x, layers, activation)


# --- the multilayer perceptron ---------------------------------------------------------------------------------------


def _mlp(activation: str = "silu") -> MLP:
    """A perceptron with two hidden layers; all of its parameters differ from 0."""
    mlp = MLP((2, 4, 3, 2), activation, rng=0, dtype=np.float64)
    mlp.parameters[:] = 0.9 * waves(len(mlp.parameters))
    return mlp


def mlp(f: Functions) -> Check:
    """The output for each activation, from a call, from `vjp` and from `jvp`."""
    checks = []
    for activation in ("silu", "tanh", "identity"):
        net = _mlp(activation)
        layers = layers_of(net.parameters, net.sizes)
        x = np.concatenate([PLANAR] * 150)  # more rows than a block of a call
        checks.append(check_mlp(lambda x, net=net: f("nn.MLP.__call__")(net, x), layers, x, activation))  # type: ignore[misc]
    return both(*checks)


def mlp_vjp(f: Functions) -> Check:
    """The derivative with respect to every parameter and to the input, for each activation."""
    target, checks = waves(5, 2), []
    for activation in ("silu", "tanh", "identity"):
        net = _mlp(activation)
        start = net.parameters.copy()

        def loss(parameters: Array) -> float:
            return float(0.5 * ((mlp_by_hand(parameters, net.sizes, activation)(PLANAR) - target) ** 2).sum())  # noqa: B023

        def gradient(parameters: Array) -> Array:
            net.parameters[:] = parameters  # noqa: B023
            y, backward = f("nn.MLP.vjp")(net, PLANAR)  # noqa: B023
            backward(y - target)
            return net.gradient.copy()  # noqa: B023

        def by_input(x: Array) -> tuple[Array, Array]:
            net.parameters[:] = start  # noqa: B023
            y, backward = f("nn.MLP.vjp")(net, x)  # noqa: B023
            return (target * y).sum(axis=1), backward(target, inputs=True)

        def losses(x: Array) -> Array:
            return (target * mlp_by_hand(start, net.sizes, activation)(x)).sum(axis=1)  # noqa: B023

        directions = np.concatenate([np.eye(len(start)), waves(2, len(start))])
        checks += [
            check_gradient(loss, gradient, start, directions),
            check_loss_gradient(by_input, losses, PLANAR, "(14)"),
        ]
    return both(*checks)


def _with_derivative(call: Callable[[Array], Array], g: Array, k: Array, direction: Array) -> float:
    """Σ g · y + k · (∂y/∂x) v, with the derivative by differences of calls."""
    derivative = central_difference(lambda h: call(PLANAR + h * direction), 1e-2)
    return float((g * call(PLANAR) + k * derivative).sum())


def mlp_jvp(f: Functions) -> Check:
    """The directional derivative with respect to the input, and the gradient of a loss that contains it."""
    direction, g, k, checks = waves(5, 2, shift=1.0), waves(5, 2, shift=2.0), waves(5, 2, shift=3.0), []
    for activation in ("silu", "tanh", "identity"):
        net = _mlp(activation)
        start = net.parameters.copy()

        def jvp(x: Array, v: Array) -> tuple[Array, Array]:
            net.parameters[:] = start  # noqa: B023
            y, dy, _ = f("nn.MLP.jvp")(net, x, v)  # noqa: B023
            return y, dy

        def gradient(parameters: Array) -> Array:
            net.parameters[:] = parameters  # noqa: B023
            _, _, backward = f("nn.MLP.jvp")(net, PLANAR, direction)  # noqa: B023
            backward(g, k)
            return net.gradient.copy()  # noqa: B023

        def loss(parameters: Array) -> float:
            return _with_derivative(mlp_by_hand(parameters, net.sizes, activation), g, k, direction)  # noqa: B023

        checks += [
            check_jvp(jvp, mlp_by_hand(start, net.sizes, activation), PLANAR, direction),
            check_gradient(loss, gradient, start, np.eye(len(start))),
        ]
    return both(*checks)


def plain_silu(f: Functions) -> Check:
    """SiLU and its derivative at points of every size, in one form."""
    return check_activation(lambda z: f("nn.activations.silu")(z)[0], f("nn.activations.silu"), 8 * waves(40))


def silu(f: Functions) -> Check:
    """SiLU and its derivative at points of every size, also large ones, in the forms that overwrite their argument."""
    z = np.concatenate([8 * waves(40), [0.0, 1e-9, -1e-9, 30.0, -30.0, 700.0, -700.0, 1e4, -1e4]])
    return check_activation(f("fast.silu.silu"), f("fast.silu.silu_and_slope"), z)


# --- the noise network -----------------------------------------------------------------------------------------------

COEFFICIENTS = EpsCoefficients(0.5 + 0.3 * waves(5), 1 + 0.2 * waves(5, shift=1.0))


def _noise_network(n_coordinate_features: int = 2) -> NoiseNetwork:
    network = NoiseNetwork(2, (3,), 2, n_coordinate_features, rng=0, dtype=np.float64, n_classes=2)
    network.parameters[:] = 0.7 * waves(len(network.parameters))
    return network


def noise_network(f: Functions) -> Check:
    """ε̂ from a call: with and without labels, with the default coefficients and with others."""
    network = _noise_network()
    mlp = mlp_by_hand(network.parameters, network.mlp.sizes)
    problem = PLANAR, SCALE, STD, 2

    def call(x: Array, scale: Any, std: Any, **given: Any) -> Array:
        return f("nn.NoiseNetwork.__call__")(network, x, scale, std, **given)

    return both(
        check_noise_network(lambda *a: call(*a, labels=LABELS), mlp, *problem, INDICATORS, 2),
        check_noise_network(call, mlp, *problem, 0 * INDICATORS, 2),
        check_noise_network(
            lambda *a: call(*a, coefficients=COEFFICIENTS, labels=LABELS),
            mlp,
            *problem,
            INDICATORS,
            2,
            tuple(COEFFICIENTS),  # type: ignore[arg-type]
        ),
    )


def noise_network_vjp(f: Functions) -> Check:
    """ε̂, its derivative with respect to every parameter, and with respect to x_t."""
    network, target = _noise_network(), waves(5, 2)
    start = network.parameters.copy()
    checks = []
    for coefficients in (None, COEFFICIENTS):
        given = {"coefficients": coefficients, "labels": LABELS}

        def vjp(x: Array) -> tuple[Array, Any]:
            return f("nn.NoiseNetwork.vjp")(network, x, SCALE, STD, **given)  # noqa: B023

        def gradient(parameters: Array) -> Array:
            network.parameters[:] = parameters
            eps_hat, backward = vjp(PLANAR)
            backward(eps_hat - target)
            return network.gradient.copy()

        def loss(parameters: Array) -> float:
            network.parameters[:] = parameters
            return float(0.5 * ((network(PLANAR, SCALE, STD, **given) - target) ** 2).sum())  # type: ignore[arg-type]  # noqa: B023

        def by_input(x: Array) -> tuple[Array, Array]:
            network.parameters[:] = start
            eps_hat, backward = vjp(x)
            return (target * eps_hat).sum(axis=1), backward(target, inputs=True)

        def losses(x: Array) -> Array:
            network.parameters[:] = start
            return np.einsum("nd,nd->n", target, network(x, SCALE, STD, **given))  # type: ignore[arg-type]  # noqa: B023

        checks += [
            check_gradient(loss, gradient, start, np.eye(len(start))),
            check_loss_gradient(by_input, losses, PLANAR),
        ]
    return both(*checks)


def noise_network_jvp(f: Functions) -> Check:
    """The directional derivative of ε̂, and the gradient of a loss that contains it."""
    network, direction = _noise_network(), waves(5, 2, shift=1.0)
    start, g, k = network.parameters.copy(), waves(5, 2, shift=2.0), waves(5, 2, shift=3.0)
    checks = []
    for coefficients in (None, COEFFICIENTS):
        given = {"coefficients": coefficients, "labels": LABELS}

        def run(parameters: Array, x: Array, v: Array) -> Any:
            network.parameters[:] = parameters
            return f("nn.NoiseNetwork.jvp")(network, x, v, SCALE, STD, **given)  # noqa: B023

        def call(x: Array) -> Array:
            network.parameters[:] = start
            return network(x, SCALE, STD, **given)  # type: ignore[arg-type]  # noqa: B023

        def gradient(parameters: Array) -> Array:
            _, _, backward = run(parameters, PLANAR, direction)
            backward(g, k)
            return network.gradient.copy()

        def loss(parameters: Array) -> float:
            network.parameters[:] = parameters
            return _with_derivative(lambda x: network(x, SCALE, STD, **given), g, k, direction)  # type: ignore[arg-type]  # noqa: B023

        checks += [
            check_jvp(lambda x, v: run(start, x, v)[:2], call, PLANAR, direction),
            check_gradient(loss, gradient, start, np.eye(len(start))),
        ]
    return both(*checks)


# --- the denoiser of whole numbers -----------------------------------------------------------------------------------

HISTOGRAMS = softmax(waves(2, 5))
LEVEL_COVARIANCE = np.array([[0.4, 0.15], [0.15, 0.3]])


def _denoiser() -> tuple[CategoricalDenoiser, Callable[[Array], Array]]:
    """A denoiser of five levels in two dimensions, and the formula of its perceptron."""
    denoiser = CategoricalDenoiser(
        HISTOGRAMS, LEVEL_COVARIANCE, (3,), n_time_features=2, n_classes=2, rng=0, dtype=np.float64
    )
    denoiser.parameters[:] = 0.7 * waves(len(denoiser.parameters))
    sizes = denoiser.sizes(2, (3,), n_time_features=2, n_classes=2)
    return denoiser, mlp_by_hand(denoiser.parameters.copy(), sizes)


def categorical_denoiser(f: Functions) -> Check:
    """The distribution over the levels, and ε̂ from a call."""
    denoiser, mlp = _denoiser()
    return check_categorical_denoiser(
        lambda: f("nn.CategoricalDenoiser.law")(denoiser, PLANAR, SCALE, STD, LABELS),
        lambda: f("nn.CategoricalDenoiser.__call__")(denoiser, PLANAR, SCALE, STD, LABELS),
        mlp,
        PLANAR,
        SCALE,
        STD,
        HISTOGRAMS,
        LEVEL_COVARIANCE,
        2,
        INDICATORS,
    )


def categorical_draw(f: Functions) -> Check:
    """Draws from an even grid of uniform numbers."""
    denoiser, mlp = _denoiser()
    law = printed_law(mlp, PLANAR, SCALE, STD, HISTOGRAMS, LEVEL_COVARIANCE, 2, INDICATORS)

    def draw(u: Array) -> Array:
        return f("nn.CategoricalDenoiser.draw")(denoiser, GivenUniform(u), PLANAR, SCALE, STD, LABELS)

    return check_categorical_draw(draw, law)


def categorical_mass(f: Functions) -> Check:
    """log P(x_0 | x_t) of whole numbers, as a loss of every example without a derivative."""
    denoiser, mlp = _denoiser()
    law = printed_law(mlp, PLANAR, SCALE, STD, HISTOGRAMS, LEVEL_COVARIANCE, 2, INDICATORS)
    counts = np.zeros_like(law)
    for levels in np.ndindex(5, 5):  # all pairs: the sum over one dimension is the distribution of the other
        level = np.tile(np.array(levels, dtype=np.float64), (len(PLANAR), 1))
        mass = np.exp(f("nn.CategoricalDenoiser.log_mass")(denoiser, level, PLANAR, SCALE, STD, LABELS))
        for d in range(2):
            counts[:, d, levels[d]] += mass
    return check_categorical_denoiser(
        lambda: counts,
        lambda: (PLANAR - SCALE[:, None] * (counts @ denoiser.levels)) / STD[:, None],
        mlp,
        PLANAR,
        SCALE,
        STD,
        HISTOGRAMS,
        LEVEL_COVARIANCE,
        2,
        INDICATORS,
    )


def categorical_vjp(f: Functions) -> Check:
    """The derivative of ε̂ with respect to every parameter, and with respect to x_t."""
    denoiser, _ = _denoiser()
    target, start = waves(5, 2), denoiser.parameters.copy()

    def gradient(parameters: Array) -> Array:
        denoiser.parameters[:] = parameters
        eps_hat, backward = f("nn.CategoricalDenoiser.vjp")(denoiser, PLANAR, SCALE, STD, LABELS)
        backward(eps_hat - target)
        return denoiser.gradient.copy()

    def loss(parameters: Array) -> float:
        denoiser.parameters[:] = parameters
        return float(0.5 * ((denoiser(PLANAR, SCALE, STD, LABELS) - target) ** 2).sum())

    def by_input(x: Array) -> tuple[Array, Array]:
        denoiser.parameters[:] = start
        eps_hat, backward = f("nn.CategoricalDenoiser.vjp")(denoiser, x, SCALE, STD, LABELS)
        return (target * eps_hat).sum(axis=1), backward(target, inputs=True)

    def losses(x: Array) -> Array:
        denoiser.parameters[:] = start
        return (target * denoiser(x, SCALE, STD, LABELS)).sum(axis=1)

    return both(
        check_gradient(loss, gradient, start, np.eye(len(start))), check_loss_gradient(by_input, losses, PLANAR)
    )


# --- the optimiser ---------------------------------------------------------------------------------------------------


def adam(f: Functions) -> Check:
    """Six steps with weight decay."""

    def run(parameters: Array, gradients: Array) -> Array:
        adam = f("nn.Adam")(parameters, learning_rate=0.01, beta1=0.8, beta2=0.95, weight_decay=0.1)
        states = []
        for gradient in gradients:
            adam.step(gradient)
            states.append(parameters.copy())
        return np.array(states)

    return check_adam(
        run, waves(4), 1e-6 + waves(6, 4, shift=1.0), learning_rate=0.01, beta1=0.8, beta2=0.95, weight_decay=0.1
    )


def moving_average(f: Functions) -> Check:
    """Twelve updates, the first of them with a smaller decay."""

    def run(start: Array, parameters: Array) -> Array:
        ema, averages = f("nn.EMA")(start, 0.5), []
        for values in parameters:
            ema.update(values)
            averages.append(ema.average.copy())
        return np.array(averages)

    return check_moving_average(run, waves(3), waves(12, 3, shift=1.0), 0.5)


def learning_rate(f: Functions) -> Check:
    """Thirty steps; the first five rise."""
    return check_learning_rate(lambda step: f("nn.cosine_decay")(step, 30, 0.02, 5), 30, 0.02, 5)
