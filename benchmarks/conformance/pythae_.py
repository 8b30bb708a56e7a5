"""pythae: losses of its VAEs, and its estimate of the log-likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from pythae import models
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder

from benchmarks.conformance import SINGLE, Finding, audited
from benchmarks.conformance.torch_ import tensor
from scratchgen import Mixture
from scratchgen.conformance import check_importance_weighted_bound
from scratchgen.conformance.result import compare
from scratchgen.equations.problems import JOINT, MU, Q, W, X

NAME = "pythae"
CONSTANT = "½ ‖x − x̂‖² without ½ D log 2π: −ELBO of a decoder of variance 1, up to this constant"
SURROGATE = (
    "the loss is −Σ w̃ log w with the normalised weights w̃: its gradient is that of IWAE, its value is not; it is below "
    "−log mean w by KL(w̃‖uniform), and can be below −log p(x)"
)
SWAPPED = (
    "weights (batch, M, K) are normalised over the M estimates in place of the K samples: M and K are exchanged, and "
    "M = 1 is the plain ELBO for every K"
)
SIGN = "get_nll returns the mean of log p(x), not of −log p(x)"

DRAWS = (
    "get_nll draws batch_size samples for an example whenever n_samples <= batch_size, 100 by default, and whole "
    "batches otherwise; the bound is that of the number drawn"
)


def findings() -> Iterator[Finding]:
    yield from losses()
    yield from importance_weighted()
    yield from likelihood()
    yield from fisher()


class Encoder(BaseEncoder):
    """N(A (x − μ), C) with the diagonal of C, of a linear-Gaussian model."""

    def __init__(self, A: Any, variance: Any) -> None:
        super().__init__()
        self.A, self.log_variance = tensor(A), tensor(np.log(variance))

    def forward(self, x: Any) -> Any:
        mean = (x - tensor(MU)) @ self.A.T
        return ModelOutput(embedding=mean, log_covariance=self.log_variance.expand(mean.shape))


class Decoder(BaseDecoder):
    def __init__(self, W: Any) -> None:
        super().__init__()
        self.W, self.calls = tensor(W), 0

    def forward(self, z: Any) -> Any:
        self.calls += len(z)
        return ModelOutput(reconstruction=z @ self.W.T + tensor(MU))


def build(name: str, W: Any = W, encoder: Any = None, **options: Any) -> Any:
    config = getattr(models, f"{name}Config")(input_dim=(4,), latent_dim=W.shape[1], **options)
    if encoder is None:
        encoder = Encoder(W.T, np.ones(W.shape[1]))
    return getattr(models, name)(config, encoder, Decoder(W))


def losses() -> Iterator[Finding]:
    """All with β = 1; examples one by one, as every loss is a mean over the batch."""
    constant = X.shape[1] / 2 * np.log(2 * np.pi)

    def rows(model: Any, part: int, added: float, **more: Any) -> Callable[..., Any]:
        def loss(x: Any, x_hat: Any, mean: Any, log_variance: Any) -> Any:
            z = torch.zeros(1, mean.shape[1])
            given = [
                (a[None], b[None], c[None], d[None]) for a, b, c, d in zip(x_hat, x, mean, log_variance, strict=True)
            ]
            return [float(model.loss_function(*row, z, **more)[part]) + added for row in given]

        return loss

    common = {"arrays": torch.as_tensor, "decoder_variance": 1.0}
    vae = build("VAE")
    cause = {"vae_loss": CONSTANT}
    yield from audited(NAME, "VAE.loss_function", cause, vae_loss=rows(vae, 0, 0.0), **common)
    for name, options, more in (
        ("VAE", {}, {}),
        ("BetaVAE", {"beta": 1.0}, {}),
        ("DisentangledBetaVAE", {"beta": 1.0, "C": 0.0, "warmup_epoch": 1}, {"epoch": 5}),
    ):
        loss = rows(build(name, **options), 0, constant, **more)
        yield from audited(NAME, f"{name}.loss_function and the constant", vae_loss=loss, **common)

    def kl(mean: Any, log_variance: Any) -> Any:
        zeros = torch.zeros(len(mean), 4, dtype=torch.float64)
        return rows(vae, 2, 0.0)(zeros, zeros, mean, log_variance)

    def draw(mean: Any, std: Any, noise: Any) -> Any:
        with patch.object(torch, "randn_like", lambda *_: noise):
            return vae._sample_gauss(mean, std)[0]

    yield from audited(NAME, "VAE.loss_function", kl=kl, arrays=torch.as_tensor)
    yield from audited(NAME, "VAE._sample_gauss", draw_z=draw, latent_spread="std", arrays=torch.as_tensor)


def importance_weighted() -> Iterator[Finding]:
    """With x̂ = x, z = μ = 0 and one latent, log w = ½ log σ² is any number."""

    def weighted(name: str, part: int, **options: Any) -> Callable[..., Any]:
        def bound(log_weights: Any) -> Any:
            n, values = len(log_weights), []
            shape = (1, n) if name in ("IWAE", "CIWAE") else (1, 1, n)
            model = build(name, W[:, :1], number_samples=n, **options)
            for column in np.asarray(log_weights).T:
                zero = torch.zeros(*shape, 1, dtype=torch.float64)
                x = torch.zeros(*shape, 4, dtype=torch.float64)
                log_variance = 2 * tensor(column).reshape(*shape, 1)
                loss = model.loss_function(x, torch.zeros(1, 4, dtype=torch.float64), zero, log_variance, zero)
                values.append(-float(loss[part]))
            return values

        return bound

    for name, options, cause in (
        ("IWAE", {}, SURROGATE),
        ("MIWAE", {"number_gradient_estimates": 1}, SWAPPED),
        ("PIWAE", {"number_gradient_estimates": 1}, SWAPPED),
        ("CIWAE", {"beta": 0.0}, SURROGATE),
    ):
        check = check_importance_weighted_bound(weighted(name, 0, **options), JOINT, Q)
        yield Finding(NAME, f"{name}.loss_function", check, cause)


def likelihood() -> Iterator[Finding]:
    """With the exact posterior as encoder, for one latent, every importance weight is p(x)."""
    w = W[:, :1]
    variance = 1 / (1 + float((w.T @ w)[0, 0]))
    model = build("VAE", w, Encoder(variance * w.T, np.array([variance])))
    law = Mixture([1.0], MU[None], (w @ w.T + np.eye(4))[None])
    with torch.no_grad():
        value = model.get_nll(tensor(X), n_samples=7, batch_size=10)
    right = -law.log_prob(X).mean()
    yield Finding(NAME, "VAE.get_nll", compare("−log p(x)", "(16)", "mean over x", value, right, 1e-9), SIGN)
    yield Finding(NAME, "−VAE.get_nll", compare("−log p(x)", "(16)", "mean over x", -value, right, 1e-9))
    used = compare("n_samples", "", "draws for an example", model.decoder.calls / len(X), 7.0, 0.0)
    yield Finding(NAME, "VAE.get_nll, n_samples=7, batch_size=10", used, DRAWS)


def fisher() -> Iterator[Finding]:
    """KL of von Mises-Fisher from the uniform law on the sphere, by quadrature over the cosine with the mean."""
    from scipy.integrate import quad

    model = build("SVAE", W)
    concentration, m = np.array([0.5, 2.0, 20.0]), 3
    right = []
    for kappa in concentration:

        def density(c: float, kappa: float = kappa) -> float:  # on the sphere in three dimensions, c is uniform
            return float(np.exp(kappa * (c - 1)))

        mass = quad(density, -1, 1)[0]
        log_ratio = quad(lambda c, f=density, n=mass: f(c) / n * np.log(2 * f(c) / n), -1, 1)[0]
        right.append(log_ratio)
    left = model._compute_kl(m=m, concentration=tensor(concentration)[:, None]).numpy()
    yield Finding(
        NAME,
        "SVAE._compute_kl, three dimensions",
        compare("KL(vMF‖uniform)", "(2)", "κ = 0.5, 2, 20", left, right, 1e-9),
        tolerance=SINGLE,
    )
