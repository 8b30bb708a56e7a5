"""PyTorch: divergences, densities, Adam; and autograd against every hand-written backward pass of the package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.conformance import SINGLE, Finding
from scratchgen import VP, Mixture
from scratchgen.conformance import (
    check_adam,
    check_denoiser,
    check_diagonal_kl,
    check_gaussian_kl,
    check_kl,
    check_log_prob,
    check_score,
)
from scratchgen.conformance.result import compare
from scratchgen.equations.problems import (
    DATA_COV,
    DATA_MEAN,
    DECODER,
    LOG_VARIANCE,
    MU,
    NOISE,
    OTHER_COV,
    PLANE,
    POINTS,
    Q_MEAN,
    P,
    W,
    X,
    waves,
)
from scratchgen.likelihood import gaussian_log_prob
from scratchgen.nn import MLP, CategoricalDenoiser, NoiseNetwork
from scratchgen.sde import score_and_divergence
from scratchgen.vae import VAENetwork, train_step

if TYPE_CHECKING:
    import torch


def findings() -> Iterator[Finding]:
    yield from divergences()
    yield from densities()
    yield from adam()
    yield from backward_passes()


def tensor(x: Any, gradient: bool = False) -> torch.Tensor:
    import torch

    return torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=gradient)


# --- torch.distributions and torch.nn.functional -----------------------------------------------------------------


def divergences() -> Iterator[Finding]:
    from torch import distributions
    from torch.nn import functional

    def gaussian(m: np.ndarray, S: np.ndarray, n: np.ndarray, R: np.ndarray) -> torch.Tensor:
        p, q = (distributions.MultivariateNormal(tensor(a), tensor(b)) for a, b in ((m, S), (n, R)))
        return distributions.kl_divergence(p, q)

    def normal(mean: np.ndarray, log_variance: np.ndarray) -> torch.Tensor:
        q = distributions.Normal(tensor(mean), tensor(log_variance).div(2).exp())
        return distributions.kl_divergence(q, distributions.Normal(0.0, 1.0)).sum(dim=1)

    def independent(mean: np.ndarray, log_variance: np.ndarray) -> torch.Tensor:
        q = distributions.Independent(distributions.Normal(tensor(mean), tensor(log_variance).div(2).exp()), 1)
        zero = tensor(np.zeros_like(mean))
        return distributions.kl_divergence(q, distributions.Independent(distributions.Normal(zero, zero + 1), 1))

    def categorical(p: np.ndarray, q: np.ndarray) -> torch.Tensor:
        return distributions.kl_divergence(distributions.Categorical(tensor(p)), distributions.Categorical(tensor(q)))

    def low_rank(m: np.ndarray, S: np.ndarray, n: np.ndarray, R: np.ndarray) -> torch.Tensor:
        p, q = (distributions.LowRankMultivariateNormal(tensor(a), *low_rank_parts(b)) for a, b in ((m, S), (n, R)))
        return distributions.kl_divergence(p, q)

    def low_rank_parts(S: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        values, vectors = np.linalg.eigh(S)
        floor = 0.5 * values[0]
        return tensor(vectors * np.sqrt(values - floor)), tensor(np.full(len(S), floor))

    name, kl = "torch", "distributions.kl_divergence"
    laws = (DATA_MEAN, DATA_COV, -DATA_MEAN, OTHER_COV)
    yield Finding(name, f"{kl}(MultivariateNormal)", check_gaussian_kl(gaussian, *laws))
    yield Finding(name, f"{kl}(LowRankMultivariateNormal)", check_gaussian_kl(low_rank, *laws))
    yield Finding(name, f"{kl}(Normal), summed", check_diagonal_kl(normal, Q_MEAN, LOG_VARIANCE))
    yield Finding(name, f"{kl}(Independent(Normal))", check_diagonal_kl(independent, Q_MEAN, LOG_VARIANCE))
    yield Finding(name, f"{kl}(Categorical)", check_kl(categorical, P, DECODER[:, 0]))
    yield Finding(
        name,
        "functional.kl_div(log q, p, reduction='sum')",
        check_kl(lambda p, q: functional.kl_div(tensor(q).log(), tensor(p), reduction="sum"), P, DECODER[:, 0]),
    )
    yield Finding(
        name,
        "functional.kl_div(log q, p), default reduction",
        check_kl(lambda p, q: functional.kl_div(tensor(q).log(), tensor(p)), P, DECODER[:, 0]),
        "the default reduction 'mean' divides by the number of table entries; by torch's documentation "
        "'batchmean' is the divergence",
    )


def densities() -> Iterator[Finding]:
    import torch
    from torch import distributions
    from torch.nn import functional

    name = "torch"
    family = distributions.MixtureSameFamily(
        distributions.Categorical(tensor(PLANE.weights)),
        distributions.MultivariateNormal(tensor(PLANE.means), tensor(PLANE.covariances)),
    )

    def score(x: np.ndarray) -> torch.Tensor:
        x = tensor(x, gradient=True)
        return torch.autograd.grad(family.log_prob(x).sum(), x)[0]

    yield Finding(
        name,
        "distributions.MixtureSameFamily.log_prob",
        check_log_prob(lambda x: family.log_prob(tensor(x)), PLANE, POINTS),
    )
    yield Finding(name, "autograd of MixtureSameFamily.log_prob", check_score(score, PLANE, POINTS))
    law = distributions.LowRankMultivariateNormal(tensor(MU), tensor(W), tensor(np.full(4, NOISE)))
    ppca = Mixture([1.0], MU[None], (W @ W.T + NOISE * np.eye(4))[None])
    yield Finding(
        name,
        "distributions.LowRankMultivariateNormal.log_prob",
        check_log_prob(lambda x: law.log_prob(tensor(x)), ppca, X),
    )

    def nll(variance: float) -> np.ndarray:
        mean = tensor(np.zeros_like(X))
        loss = functional.gaussian_nll_loss(
            mean, tensor(X), torch.full_like(mean, variance), full=True, reduction="none"
        )
        return loss.sum(dim=1).numpy()

    for variance, cause in (
        (0.3, ""),
        (
            1e-8,
            "eps = 1e-6, meant for stability, replaces smaller variances",
        ),
    ):
        right = -gaussian_log_prob(X, np.zeros_like(X), np.log(variance))
        yield Finding(
            name,
            f"functional.gaussian_nll_loss(full=True), σ² = {variance:g}",
            compare("likelihood.gaussian_log_prob", "(14)", "−log N(x; 0, σ² I)", nll(variance), right, 1e-12),
            cause,
        )


# --- torch.optim ------------------------------------------------------------------------------------------------


def adam() -> Iterator[Finding]:
    import torch

    start, gradients = waves(4), 1e-6 + waves(6, 4, shift=1.0)
    gradients[:, 3] *= 1e-8  # of the size of ε, so that the place of ε matters

    def run(cls: Any, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
        def steps(parameters: np.ndarray, gradients: np.ndarray) -> np.ndarray:
            theta = torch.tensor(parameters, dtype=dtype, requires_grad=True)
            optimizer = cls([theta], lr=0.01, betas=(0.8, 0.95), **options)
            states = []
            for gradient in gradients:
                theta.grad = torch.tensor(gradient, dtype=dtype)
                optimizer.step()
                states.append(theta.detach().numpy().copy())
            return np.array(states)

        return steps

    settings = {"learning_rate": 0.01, "beta1": 0.8, "beta2": 0.95}
    for options in ({"foreach": False}, {"foreach": True}, {"fused": True}):
        label = ", ".join(f"{key}={value}" for key, value in options.items())
        yield Finding(
            "torch", f"optim.Adam, {label}", check_adam(run(torch.optim.Adam, **options), start, gradients, **settings)
        )
        decayed = run(torch.optim.AdamW, weight_decay=0.1, **options)
        yield Finding(
            "torch",
            f"optim.AdamW, weight_decay=0.1, {label}",
            check_adam(decayed, start, gradients, **settings, weight_decay=0.1),
        )
    single = check_adam(run(torch.optim.Adam, torch.float32), start, gradients, **settings, tolerance=SINGLE)
    yield Finding("torch", "optim.Adam, float32", single, tolerance=SINGLE)
    yield Finding(
        "torch",
        "optim.Adam, weight_decay=0.1",
        check_adam(run(torch.optim.Adam, weight_decay=0.1), start, gradients, **settings, weight_decay=0.1),
        "weight_decay of Adam is an L2 penalty inside the moments; AdamW has the decoupled decay",
    )


# --- torch.autograd against the package -------------------------------------------------------------------------


def ours(what: str, quantities: dict[str, tuple[Any, Any]], single: bool = False) -> Finding:
    """For every quantity, the package's value against torch's."""
    parts = [(np.asarray(left), right.detach().numpy()) for left, right in quantities.values()]
    if any(left.shape != right.shape for left, right in parts):
        raise ValueError(f"{what}: shapes differ, {[(left.shape, right.shape) for left, right in parts]}")
    left, right = (np.concatenate([np.ravel(part) for part in side]) for side in zip(*parts, strict=True))
    check = compare("against torch.autograd", "", ", ".join(quantities), left, right, 1e-12)
    return Finding("scratchgen", what, check, tolerance=SINGLE if single else None)


def perceptron(mlp: MLP) -> tuple[Any, list[torch.Tensor]]:
    """The network in torch, and its parameters in the order of the flat vector."""
    import torch

    parameters = [tensor(part, gradient=True) for pair in zip(mlp.weights, mlp.biases, strict=True) for part in pair]
    activation = {"silu": torch.nn.functional.silu, "tanh": torch.tanh, "identity": lambda z: z}[mlp.activation]

    def forward(x: torch.Tensor) -> torch.Tensor:
        for i in range(0, len(parameters), 2):
            x = x @ parameters[i] + parameters[i + 1]
            if i + 2 < len(parameters):
                x = activation(x)
        return x

    return forward, parameters


def flat(gradients: Any) -> torch.Tensor:
    import torch

    return torch.cat([gradient.ravel() for gradient in gradients])


def noise_predictor(network: NoiseNetwork) -> tuple[Any, list[torch.Tensor]]:
    """ε̂(x, scale, std) of the package's network in torch, from the formula in its docstring."""
    import torch

    mlp, parameters = perceptron(network.mlp)
    n, times = network.n_coordinate_features, network.n_time_features

    def eps_hat(x: torch.Tensor, scale: Any, std: Any) -> torch.Tensor:
        scale, std = (tensor(np.broadcast_to(np.reshape(a, (-1, 1)), (len(x), 1)).copy()) for a in (scale, std))
        r = (scale**2 + std**2).sqrt()
        y = x / r
        angles = (y[:, :, None] * 2.0 ** torch.arange(1, n + 1, dtype=torch.float64)).reshape(len(x), -1)
        clock = (scale / std).log() * tensor(np.geomspace(0.25, 4.0, times))
        features = torch.cat([y, angles.cos(), angles.sin(), clock.cos(), clock.sin()], dim=1)
        return std / r * y + scale / r * mlp(features)

    return eps_hat, parameters


def backward_passes() -> Iterator[Finding]:
    yield from backward_of_mlp()
    yield from backward_of_noise_network()
    yield from jvp_of_noise_network()
    yield from backward_of_categorical_denoiser()
    yield from backward_of_vae()
    yield from divergence_of_score()
    yield from derivatives_of_mixture()


def backward_of_mlp() -> Iterator[Finding]:
    import torch

    for activation in ("silu", "tanh", "identity"):
        for size, label in ((1.0, ""), (300.0, ", inputs up to 300")):
            mlp = MLP((3, 7, 5, 2), activation, rng=0, dtype=np.float64)
            mlp.parameters += 0.1 * waves(len(mlp.parameters))
            x, weight = size * waves(6, 3), waves(6, 2, shift=1.0)
            forward, parameters = perceptron(mlp)
            x_torch = tensor(x, gradient=True)
            output = forward(x_torch)
            *grads, grad_x = torch.autograd.grad(output, [*parameters, x_torch], tensor(weight))
            value, backward = mlp.vjp(x)
            back = backward(weight, inputs=True)
            yield ours(
                f"MLP.vjp, {activation}{label}",
                {"output": (value, output), "∂/∂parameters": (mlp.gradient, flat(grads)), "∂/∂x": (back, grad_x)},
            )


def random_noise_network(dtype: Any) -> NoiseNetwork:
    network = NoiseNetwork(2, (8, 6), n_time_features=4, n_coordinate_features=3, rng=0, dtype=dtype)
    network.parameters += (0.3 * waves(len(network.parameters))).astype(dtype)  # the last layer starts at 0
    return network


def backward_of_noise_network() -> Iterator[Finding]:
    import torch

    x, weight = POINTS, waves(6, 2, shift=2.0)
    levels = {"one level per row": VP().marginal(np.linspace(0.02, 1.0, 6)), "scale and std not VP": (1.3, 2.1)}
    for label, (scale, std) in levels.items():
        network = random_noise_network(np.float64)
        eps_hat, parameters = noise_predictor(network)
        x_torch = tensor(x, gradient=True)
        output = eps_hat(x_torch, scale, std)
        *grads, grad_x = torch.autograd.grad(output, [*parameters, x_torch], tensor(weight))
        value, backward = network.vjp(x, scale, std)
        back = backward(weight, inputs=True)
        yield ours(
            f"NoiseNetwork.vjp, {label}",
            {"ε̂": (value, output), "∂/∂parameters": (network.gradient, flat(grads)), "∂/∂x": (back, grad_x)},
        )


def jvp_of_noise_network() -> Iterator[Finding]:
    """The directional derivative, and the gradient of Σ g · ε̂ + k · dε̂, by differentiating twice."""
    import torch

    network = random_noise_network(np.float64)
    eps_hat, parameters = noise_predictor(network)
    scale, std = VP().marginal(np.linspace(0.02, 1.0, 6))
    v, g, k = (waves(6, 2, shift=shift) for shift in (1.0, 2.0, 3.0))
    field = (lambda x: eps_hat(x, scale, std), tensor(POINTS, gradient=True), tensor(v))
    output, derivative = torch.autograd.functional.jvp(*field, create_graph=True)
    grads = torch.autograd.grad((tensor(g) * output + tensor(k) * derivative).sum(), parameters)
    value, along, backward = network.jvp(POINTS, v, scale, std)
    backward(g, k)
    yield ours(
        "NoiseNetwork.jvp",
        {"ε̂": (value, output), "dε̂": (along, derivative), "∂/∂parameters": (network.gradient, flat(grads))},
    )


def backward_of_categorical_denoiser() -> Iterator[Finding]:
    """ε̂ in torch, from the formulas in the docstring: per-pixel posterior, Wiener denoiser, corrections, mean."""
    import torch

    histograms = np.array([[0.1, 0.4, 0.2, 0.3], [0.3, 0.2, 0.25, 0.25]])
    covariance = np.array([[0.4, 0.1], [0.1, 0.3]])
    network = CategoricalDenoiser(histograms, covariance, (6,), n_time_features=3, rng=0, dtype=np.float64)
    network.parameters += 0.3 * waves(len(network.parameters))
    mlp, parameters = perceptron(network.mlp)
    levels = tensor(np.linspace(-1, 1, 4))
    basis = torch.stack([levels == -1, levels == 1, levels, levels**2]).double()
    mean, weight = tensor(histograms) @ levels, waves(6, 2, shift=2.0)
    for label, level in {
        "one level per row": VP().marginal(np.linspace(0.05, 1.0, 6)),
        "one level": (0.8, 0.6),
    }.items():
        scale, std = (tensor(np.broadcast_to(np.reshape(a, (-1, 1)), (6, 1)).copy()) for a in level)
        x = tensor(POINTS, gradient=True)
        own = tensor(histograms).log() - ((x[:, :, None] - scale[:, :, None] * levels) / std[:, :, None]) ** 2 / 2
        centred = x - scale * mean
        spread = scale[:, :, None] ** 2 * tensor(covariance) + std[:, :, None] ** 2 * torch.eye(2, dtype=torch.float64)
        wiener = scale * (tensor(covariance) @ torch.linalg.solve(spread, centred[:, :, None]))[:, :, 0]
        clock = (scale / std).log() * tensor(np.geomspace(0.25, 4.0, 3))
        entering = [
            centred / (scale**2 + std**2).sqrt(),
            own.softmax(2) @ levels - mean,
            wiener,
            clock.cos(),
            clock.sin(),
        ]
        law = (own + mlp(torch.cat(entering, dim=1)).reshape(6, 2, 4) @ basis).softmax(2)
        output = (x - scale * (law @ levels)) / std
        *grads, grad_x = torch.autograd.grad(output, [*parameters, x], tensor(weight))
        value, backward = network.vjp(POINTS, *level)
        back = backward(weight, inputs=True)
        yield ours(
            f"CategoricalDenoiser.vjp, {label}",
            {"ε̂": (value, output), "∂/∂parameters": (network.gradient, flat(grads)), "∂/∂x": (back, grad_x)},
        )


def backward_of_vae() -> Iterator[Finding]:
    import torch

    noise = waves(5, 2)
    for hidden, activation in (((), "identity"), ((6,), "silu"), ((6, 5), "tanh")):
        network = VAENetwork(4, 2, hidden, activation, rng=0, dtype=np.float64)
        network.log_variance[:] = -0.4
        (encode, encoder), (decode, decoder) = perceptron(network.encoder), perceptron(network.decoder)
        log_s2 = tensor(network.log_variance, gradient=True)
        x = tensor(X)
        mean, log_variance = encode(x).split(2, dim=1)
        z = mean + (log_variance / 2).exp() * tensor(noise)
        decoder_law = torch.distributions.Normal(decode(z), (log_s2 / 2).exp())
        q = torch.distributions.Normal(mean, (log_variance / 2).exp())
        kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
        loss = kl.sum(dim=1) - decoder_law.log_prob(x).sum(dim=1)
        grads = torch.autograd.grad(loss.mean(), [*encoder, *decoder, log_s2])
        value = train_step(network, X, noise)
        cut = len(encoder)
        yield ours(
            f"vae.train_step, hidden={hidden}, {activation}",
            {
                "−ELBO": (value, loss),
                "∂/∂encoder": (network.encoder.gradient, flat(grads[:cut])),
                "∂/∂decoder": (network.decoder.gradient, flat(grads[cut:-1])),
                "∂/∂log s²": (network.log_variance_gradient, grads[-1]),
            },
        )


def divergence_of_score() -> Iterator[Finding]:
    import torch

    for dtype in (np.float64, np.float32):
        sde, network = VP(0.3, 4.0, 1.7), random_noise_network(dtype)
        eps_hat, _ = noise_predictor(network)
        for t in (0.05, 1.2):
            scale, std = sde.level(t)

            def field(x: torch.Tensor, scale: float = scale, std: float = std, eps_hat: Any = eps_hat) -> torch.Tensor:
                return -eps_hat(x, scale, std) / std

            x = tensor(POINTS)
            jacobians = [torch.autograd.functional.jacobian(field, row[None])[0, :, 0] for row in x]
            score, divergence = score_and_divergence(network, sde, POINTS.astype(dtype), t)
            trace = torch.stack([jacobian.trace() for jacobian in jacobians])
            yield ours(
                f"sde.score_and_divergence, t = {t}, {np.dtype(dtype).name}",
                {"s_θ": (score, field(x)), "div s_θ": (divergence, trace)},
                single=dtype is np.float32,
            )


def derivatives_of_mixture() -> Iterator[Finding]:
    import torch
    from torch import distributions

    covariances, means = tensor(PLANE.covariances), tensor(PLANE.means)
    log_weights = tensor(np.log(PLANE.weights), gradient=True)

    def log_prob(x: torch.Tensor, scale: float = 1.0, std: float = 0.0) -> torch.Tensor:
        spread = scale**2 * covariances + std**2 * torch.eye(2, dtype=torch.float64)
        parts = distributions.MultivariateNormal(scale * means, spread).log_prob(x[:, None])
        return torch.logsumexp(parts + log_weights, dim=1)

    x = tensor(POINTS, gradient=True)
    gradient = torch.autograd.grad(log_prob(x).sum(), x)[0]
    hessians = [torch.autograd.functional.hessian(lambda y: log_prob(y[None])[0], row) for row in tensor(POINTS)]
    responsibilities = torch.autograd.functional.jacobian(
        lambda logs: torch.logsumexp(
            distributions.MultivariateNormal(means, covariances).log_prob(x[:, None]) + logs, dim=1
        ),
        log_weights,
    )
    yield ours("Mixture.score", {"∇ log p": (PLANE.score(POINTS), gradient)})
    yield ours("Mixture.score_jacobian", {"∇∇ᵀ log p": (PLANE.score_jacobian(POINTS), torch.stack(hessians))})
    yield ours("Mixture.posterior", {"∂ log p/∂ log weights": (PLANE.posterior(POINTS), responsibilities)})

    def denoise(x_t: np.ndarray, scale: float, std: float) -> torch.Tensor:
        point = tensor(x_t, gradient=True)
        return (tensor(x_t) + std**2 * torch.autograd.grad(log_prob(point, scale, std).sum(), point)[0]) / scale

    yield Finding(
        "torch", "autograd of a diffused mixture, by Tweedie", check_denoiser(denoise, PLANE, POINTS, 0.6, 0.8)
    )
