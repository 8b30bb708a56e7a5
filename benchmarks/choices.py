"""What the choices of training are worth, on eight Gaussians, where the answers are exact.

`python -m benchmarks.choices`: for a score model the right side of (34), which bounds KL(p‖p_θ), by quadrature; for a
DDPM of 100 steps −ELBO − H(p) from the noise losses by quadrature, and KL(p‖p_θ) of its sampler, followed step by step
on a grid.  Nats, mean and range over the seeds; every model has the same network, data and number of steps.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from scratchgen import DDPM, ScoreSDE, datasets
from scratchgen.ddpm import negative_elbo
from scratchgen.grading import ancestral_density, grade_noise
from scratchgen.sde import kl_bound

TRUTH = datasets.eight_gaussians()
COMMON: dict[str, Any] = {"hidden": (128, 128), "n_coordinate_features": 3, "standardize": False}
SCORE_MODELS: list[dict[str, Any]] = [
    {},
    {"time_choice": "uniform"},
    {"time_choice": "importance"},
    {"weighting": "noise"},
    {"matching": "implicit"},
    {"matching": "sliced-vr"},
    {"matching": "sliced-vr", "directions": "gaussian"},
    {"matching": "sliced"},
    {"matching": "sliced", "directions": "gaussian"},
]
DDPMS: list[dict[str, Any]] = [
    {},
    {"step_choice": "stratified"},
    {"step_choice": "importance"},
    {"weighting": "bound"},
    {"weighting": "bound", "step_choice": "importance"},
    {"weighting": "min-snr"},
    {"prediction": "noise"},
    {"prediction": "x0"},
    {"variance": "posterior"},
    {"variance": "optimal"},
]


def score_model_bound(model: ScoreSDE) -> tuple[float]:
    """Right side of (34)."""
    sde = model.sde_
    prior_kl = TRUTH.diffuse(*sde.level(sde.horizon)).kl(sde.prior_log_prob)

    def score_error(t: float) -> float:
        scale, std = sde.level(t)
        return grade_noise(TRUTH, lambda x: model.eps_hat(x, t), scale, std).excess / std**2

    return (kl_bound(sde, score_error, prior_kl, model.t_min, n_nodes=32),)


def ddpm_gaps(model: DDPM) -> tuple[float, float]:
    """−ELBO − H(p), and KL(p‖p_θ)."""
    schedule, losses = model.schedule_, np.zeros(model.schedule_.T + 1)
    for t in range(1, schedule.T + 1):
        level = float(schedule.alpha_bar[t]), float(schedule.beta_bar[t])
        losses[t] = sum(grade_noise(TRUTH, lambda x, t=t: model.eps_hat(x, t), *level))  # type: ignore[misc]
    second_moment = float(np.trace(TRUTH.covariance()) + TRUTH.mean() @ TRUTH.mean())
    bound = negative_elbo(schedule, losses, second_moment, TRUTH.dimension, model.variance_)
    chain = ancestral_density(schedule, model.eps_hat, TRUTH.dimension, model.variance_)
    return bound - TRUTH.entropy(), chain.kl_from(TRUTH.log_prob(chain.points))


def spread(values: list[float]) -> str:
    """Mean and range."""
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def main() -> None:
    """Train every model on every seed and print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4000)
    options = parser.parse_args()
    tables = [
        (
            "| ScoreSDE | right side of (34), nats | training, s |\n|---|---|---|",
            ScoreSDE,
            SCORE_MODELS,
            score_model_bound,
        ),
        ("| DDPM | −ELBO − H(p), nats | KL(p‖p_θ), nats | training, s |\n|---|---|---|---|", DDPM, DDPMS, ddpm_gaps),
    ]
    threadpool_limits(1, user_api="blas")
    for header, cls, choices, measure in tables:
        print(header)
        for choice in choices:
            results, seconds = [], []
            for seed in range(options.seeds):
                x = TRUTH.sample(20000, seed)
                began = time.perf_counter()
                model = cls(n_steps=options.steps, rng=seed, **COMMON, **choice).fit(x)
                seconds.append(time.perf_counter() - began)
                results.append(measure(model))  # type: ignore[arg-type]
            name = ", ".join(f"{key}={value!r}" for key, value in choice.items()) or "defaults"
            cells = " | ".join(spread(list(column)) for column in zip(*results, strict=True))
            print(f"| {name} | {cells} | {np.median(seconds):.1f} |", flush=True)
        print()


if __name__ == "__main__":
    main()
