"""NumPyro: Trace_ELBO, TraceMeanField_ELBO and RenyiELBO, with given draws, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
import numpyro
from jax import numpy as jnp
from numpyro import distributions as dist
from numpyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO

from benchmarks.conformance import Finding
from scratchgen.conformance import check_importance_weighted_bound, check_linear_gaussian_elbo
from scratchgen.conformance.result import Check, compare
from scratchgen.equations.problems import JOINT, MU, NOISE, Q_COV, Q_MEAN, Q, W, X, waves

NAME = "NumPyro"
KEY = jax.random.key(0)


def findings() -> Iterator[Finding]:
    with jax.enable_x64(True):
        yield from in_double()


def in_double() -> Iterator[Finding]:
    for elbo in (Trace_ELBO, TraceMeanField_ELBO):
        check = check_linear_gaussian_elbo(linear_gaussian(elbo), X, W, MU, NOISE, Q_MEAN, Q_COV)
        yield Finding(NAME, f"{elbo.__name__}.loss, mean over the draws, linear-Gaussian model", check)
    yield Finding(NAME, "RenyiELBO(0).loss", check_importance_weighted_bound(lambda w: renyi(w, 0.0), JOINT, Q))
    for alpha in (-1.0, 0.5, 2.0):
        log_weights = 2 * waves(3, 4)
        right = np.log((np.exp(log_weights) ** (1 - alpha)).mean(axis=0)) / (1 - alpha)
        check = compare("Li and Turner 2016", "", "the bound, of three draws", renyi(log_weights, alpha), right, 1e-12)
        yield Finding(NAME, f"RenyiELBO({alpha:g}).loss", check)
    for size in (4, 2):
        label = f"a plate of 4{'' if size == 4 else ', 2 of them drawn'}"
        yield Finding(NAME, f"RenyiELBO(0).loss, {label}", subsampled(size))


def linear_gaussian(elbo: Any) -> Callable[..., Any]:
    def value(x: Any, W: Any, mean: Any, noise_variance: float, q_mean: Any, q_cov: Any) -> Any:
        k = W.shape[1]

        def model(row: Any, _: Any) -> None:
            z = numpyro.sample("z", dist.MultivariateNormal(jnp.zeros(k), jnp.eye(k)))
            numpyro.sample("x", dist.Normal(W @ z + mean, noise_variance**0.5).to_event(1), obs=row)

        def guide(_: Any, location: Any) -> None:
            numpyro.sample("z", dist.MultivariateNormal(location, q_cov))

        def one(row: Any, location: Any, z: Any) -> float:
            with patch.object(jax.random, "normal", lambda *_, **__: jnp.asarray(z)):
                return -float(elbo().loss(KEY, {}, model, guide, jnp.asarray(row), jnp.asarray(location)))

        points = np.sqrt(k) * np.concatenate([np.eye(k), -np.eye(k)])  # their average integrates a quadratic exactly
        return [np.mean([one(*pair, z) for z in points]) for pair in zip(x, q_mean, strict=True)]

    return value


def in_turn(function: Any, keys: Any) -> Any:
    """The particles one after the other, so that each gets its own factor."""
    return jax.tree.map(lambda *values: jnp.stack([jnp.asarray(v) for v in values]), *[function(key) for key in keys])


def renyi(log_weights: Any, alpha: float) -> Any:
    """A guide and a model with the same law of z, so that log w is the factor of the model."""

    def one(column: Any) -> float:
        rows = iter(column)

        def model() -> None:
            numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.factor("w", jnp.asarray(next(rows)))

        elbo = RenyiELBO(alpha, num_particles=len(column))
        elbo.vectorize_particles_fn = in_turn
        return -float(elbo.loss(KEY, {}, model, lambda: numpyro.sample("z", dist.Normal(0.0, 1.0)) and None))

    return [one(column) for column in np.asarray(log_weights).T]


def subsampled(size: int) -> Check:
    """Σ over the plate of log mean w, (4/size) times the sum over the examples drawn."""
    log_weights = 2 * waves(3, 4)
    rows, drawn = iter(log_weights), []

    def model() -> None:
        weights = next(rows)
        with numpyro.plate("data", 4, subsample_size=size) as chosen:
            drawn.append(np.asarray(chosen))
            numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.factor("w", jnp.asarray(weights)[chosen])

    def guide() -> None:
        with numpyro.plate("data", 4, subsample_size=size):
            numpyro.sample("z", dist.Normal(0.0, 1.0))

    elbo = RenyiELBO(0, num_particles=3)
    elbo.vectorize_particles_fn = in_turn
    left = -float(elbo.loss(KEY, {}, model, guide))
    right = 4 / size * np.log(np.exp(log_weights[:, drawn[0]]).mean(axis=0)).sum()
    return compare("Burda et al. 2016", "(8)", "the bound, summed over the data", left, right, 1e-12)
