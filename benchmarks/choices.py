"""The effect of the choices of training, on eight Gaussians, where the answers are exact.

`python -m benchmarks.choices` trains score models and DDPMs of 100 steps.  For a score model it measures the right side
of (34), which bounds KL(p‖p_θ), by quadrature.  For a DDPM it measures −ELBO − H(p) from the noise losses by
quadrature, and KL(p‖p_θ) of its sampler, step by step on a grid.  All values are nats, mean and range over the seeds.
Every model has the same network, data and number of steps.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from scratchgen import DDPM, ScoreSDE, datasets
from scratchgen.grading import ancestral_density, grade_bound, grade_kl_bound
from scratchgen.validation import Array

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

    def score(x: Array, t: float) -> Array:
        return -model.eps_hat(x, t) / model.sde_.level(t)[1]

    return (grade_kl_bound(model.sde_, score, TRUTH, model.t_min, rtol=1e-3).bound,)


def ddpm_gaps(model: DDPM) -> tuple[float, float]:
    """−ELBO − H(p), and KL(p‖p_θ)."""
    grade = grade_bound(model.schedule_, model.eps_hat, TRUTH, model.variance_)
    chain = ancestral_density(model.schedule_, model.eps_hat, TRUTH.dimension, model.variance_)
    return grade.bound - grade.entropy, chain.kl_from(TRUTH.log_prob(chain.points))


def spread(values: list[float]) -> str:
    """Mean and range."""
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def main() -> None:
    """Train every model with every seed and print two Markdown tables."""
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
