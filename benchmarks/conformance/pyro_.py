"""Pyro: Trace_ELBO, TraceMeanField_ELBO, TraceEnum_ELBO and RenyiELBO, with given draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import pyro
import torch
from pyro import distributions as dist
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO, config_enumerate
from torch.distributions import multivariate_normal

from benchmarks.conformance import Finding
from benchmarks.conformance.torch_ import tensor
from scratchgen.conformance import check_elbo, check_importance_weighted_bound, check_linear_gaussian_elbo
from scratchgen.conformance.result import Check, compare
from scratchgen.equations.problems import JOINT, MU, NOISE, Q_COV, Q_MEAN, Q, W, X, waves

NAME = "Pyro"
SCALED = (
    "the log-weights carry the factor N/B of a subsampled plate inside the logarithm of the mean: log mean w^(N/B) in "
    "place of (N/B) log mean w, the bound of local latent variables"
)


def findings() -> Iterator[Finding]:
    for elbo in (Trace_ELBO, TraceMeanField_ELBO):
        check = check_linear_gaussian_elbo(linear_gaussian(elbo), X, W, MU, NOISE, Q_MEAN, Q_COV)
        yield Finding(NAME, f"{elbo.__name__}.loss, mean over the draws, linear-Gaussian model", check)
    yield Finding(NAME, "TraceEnum_ELBO.loss, discrete model", check_elbo(discrete, JOINT, Q))
    for vectorized in (False, True):
        check = check_importance_weighted_bound(lambda w, v=vectorized: renyi(w, 0.0, v), JOINT, Q)
        yield Finding(NAME, f"RenyiELBO(0).loss, vectorize_particles={vectorized}", check)
    for alpha in (-1.0, 0.5, 2.0):
        yield Finding(NAME, f"RenyiELBO({alpha:g}).loss", of_order(renyi, alpha))
    for size, cause in ((4, ""), (2, SCALED)):
        label = f"a plate of 4{'' if size == 4 else ', 2 of them drawn'}"
        yield Finding(NAME, f"RenyiELBO(0).loss, {label}", subsampled(size), cause)


def sigma_points(cov: Any) -> Any:
    """Noise whose equal average integrates every quadratic exactly."""
    k = len(cov)
    return np.sqrt(k) * np.concatenate([np.eye(k), -np.eye(k)])


def linear_gaussian(elbo: Any) -> Callable[..., Any]:
    def value(x: Any, W: Any, mean: Any, noise_variance: float, q_mean: Any, q_cov: Any) -> Any:
        k = W.shape[1]

        def model(row: Any, _: Any) -> None:
            z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(k).double(), torch.eye(k).double()))
            law = dist.Normal(tensor(W) @ z + tensor(mean), noise_variance**0.5).to_event(1)
            pyro.sample("x", law, obs=row)

        def guide(_: Any, location: Any) -> None:
            pyro.sample("z", dist.MultivariateNormal(location, tensor(q_cov)))

        def one(row: Any, location: Any, z: Any) -> float:
            with patch.object(multivariate_normal, "_standard_normal", lambda *_, **__: tensor(z)):
                return -elbo().loss(model, guide, tensor(row), tensor(location))

        points = sigma_points(q_cov)
        return [np.mean([one(*pair, z) for z in points]) for pair in zip(x, q_mean, strict=True)]

    return value


def discrete(joint: Any, q: Any) -> Any:
    """p(x, z) as p(z) p(x | z)."""
    prior = joint.sum(axis=0)

    def model(i: int) -> None:
        z = pyro.sample("z", dist.Categorical(tensor(prior)))
        pyro.sample("x", dist.Categorical(tensor((joint / prior).T)[z]), obs=torch.tensor(i))

    @config_enumerate
    def guide(i: int) -> None:
        pyro.sample("z", dist.Categorical(tensor(q[i])))

    return [-TraceEnum_ELBO(max_plate_nesting=0).loss(model, guide, i) for i in range(len(q))]


def renyi(log_weights: Any, alpha: float, vectorized: bool = False) -> Any:
    """A guide and a model with the same law of z, so that log w is the factor of the model."""
    n = len(log_weights)

    def one(column: Any) -> float:
        rows = iter(column)

        def model() -> None:
            z = pyro.sample("z", dist.Normal(tensor(0.0), 1.0))
            pyro.factor("w", tensor(column).reshape(z.shape) if vectorized and n > 1 else tensor(next(rows)))

        def guide() -> None:
            pyro.sample("z", dist.Normal(tensor(0.0), 1.0))

        elbo = RenyiELBO(alpha, num_particles=n, vectorize_particles=vectorized, max_plate_nesting=0)
        return -elbo.loss(model, guide)

    return [one(column) for column in np.asarray(log_weights).T]


def of_order(value: Callable[..., Any], alpha: float) -> Check:
    """Li and Turner 2016: 1/(1 − α) log mean w^(1 − α)."""
    log_weights = 2 * waves(3, 4)
    right = np.log((np.exp(log_weights) ** (1 - alpha)).mean(axis=0)) / (1 - alpha)
    return compare("Li and Turner 2016", "", "the bound, of three draws", value(log_weights, alpha), right, 1e-12)


def subsampled(size: int) -> Check:
    """Σ over the plate of log mean w, (4/size) times the sum over the first `size` examples."""
    log_weights = 2 * waves(3, 4)
    rows = iter(log_weights)
    chosen = torch.arange(size)

    def model() -> None:
        weights = tensor(next(rows))
        with pyro.plate("data", 4, subsample=chosen):
            pyro.sample("z", dist.Normal(torch.zeros(size).double(), 1.0))
            pyro.factor("w", weights[chosen])

    def guide() -> None:
        with pyro.plate("data", 4, subsample=chosen):
            pyro.sample("z", dist.Normal(torch.zeros(size).double(), 1.0))

    left = -RenyiELBO(0, num_particles=3, max_plate_nesting=1).loss(model, guide)
    right = 4 / size * np.log(np.exp(log_weights[:, :size]).mean(axis=0)).sum()
    return compare("Burda et al. 2016", "(8)", "the bound, summed over the data", left, right, 1e-12)
